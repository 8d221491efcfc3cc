/* The cheapest relay on libsrt: blocking calls, one datagram each, nothing else. scripts/bench-peers builds it.
 *
 * libsrt send PORT SRT-PORT [PASSPHRASE]      UDP in, calls with SRT
 * libsrt receive SRT-PORT PORT [PASSPHRASE]   waits for a caller, UDP out
 */
#include <arpa/inet.h>
#include <srt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void check(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, srt_getlasterror_str());
        exit(1);
    }
}

static struct sockaddr_in loopback(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static SRTSOCKET new_socket(const char *passphrase)
{
    int latency = 120, buffer = 64 << 20, window = 60000, udp = 8 << 20;
    long long unlimited = -1;
    SRTSOCKET socket = srt_create_socket();
    check(socket, "socket");
    check(srt_setsockflag(socket, SRTO_LATENCY, &latency, sizeof latency), "latency");
    check(srt_setsockflag(socket, SRTO_FC, &window, sizeof window), "fc");
    check(srt_setsockflag(socket, SRTO_SNDBUF, &buffer, sizeof buffer), "sndbuf");
    check(srt_setsockflag(socket, SRTO_RCVBUF, &buffer, sizeof buffer), "rcvbuf");
    check(srt_setsockflag(socket, SRTO_UDP_SNDBUF, &udp, sizeof udp), "udp sndbuf");
    check(srt_setsockflag(socket, SRTO_UDP_RCVBUF, &udp, sizeof udp), "udp rcvbuf");
    check(srt_setsockflag(socket, SRTO_MAXBW, &unlimited, sizeof unlimited), "maxbw");
    if (passphrase)
        check(srt_setsockflag(socket, SRTO_PASSPHRASE, passphrase, strlen(passphrase)), "passphrase");
    return socket;
}

int main(int count, char **args)
{
    if (count < 4)
        return 2;
    const char *passphrase = count > 4 ? args[4] : NULL;
    int is_sender = strcmp(args[1], "send") == 0;
    struct sockaddr_in udp_address = loopback(args[is_sender ? 2 : 3]);
    struct sockaddr_in srt_address = loopback(args[is_sender ? 3 : 2]);
    int udp = socket(AF_INET, SOCK_DGRAM, 0), size = 8 << 20;
    char packet[2048];

    setsockopt(udp, SOL_SOCKET, is_sender ? SO_RCVBUF : SO_SNDBUF, &size, sizeof size);
    check(srt_startup(), "startup");
    SRTSOCKET srt = new_socket(passphrase);
    if (is_sender) {
        if (bind(udp, (struct sockaddr *)&udp_address, sizeof udp_address) < 0)
            return 1;
        check(srt_connect(srt, (struct sockaddr *)&srt_address, sizeof srt_address), "connect");
        for (;;) {
            ssize_t bytes = recv(udp, packet, sizeof packet, 0);
            check(bytes < 0 ? 0 : srt_sendmsg2(srt, packet, bytes, NULL), "send");
        }
    }
    if (connect(udp, (struct sockaddr *)&udp_address, sizeof udp_address) < 0)
        return 1;
    check(srt_bind(srt, (struct sockaddr *)&srt_address, sizeof srt_address), "bind");
    check(srt_listen(srt, 1), "listen");
    SRTSOCKET caller = srt_accept(srt, NULL, NULL);
    check(caller, "accept");
    for (;;) {
        int bytes = srt_recvmsg2(caller, packet, sizeof packet, NULL);
        check(bytes, "receive");
        if (send(udp, packet, bytes, 0) < 0)
            perror("send");
    }
}
