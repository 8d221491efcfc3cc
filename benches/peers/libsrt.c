/* The cheapest relay on libsrt: blocking calls, one datagram each, nothing else. scripts/bench-peers builds it.
 *
 * libsrt send PORT SRT-PORT [PASSPHRASE]      UDP in, calls with SRT
 * libsrt receive SRT-PORT PORT [PASSPHRASE]   waits for a caller, UDP out
 * libsrt make MBPS SRT-PORT [PASSPHRASE]      what it sends comes from nowhere, every millisecond
 * libsrt take SRT-PORT - [PASSPHRASE]         what it receives goes nowhere; tells packets and drops each second
 */
#include <arpa/inet.h>
#include <srt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
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

static void make(SRTSOCKET srt, long mbps)
{
    char packet[1316] = {0x47};
    struct timespec next;
    double due = 0;

    clock_gettime(CLOCK_MONOTONIC, &next);
    for (;;) {
        if ((next.tv_nsec += 1000000) >= 1000000000) {
            next.tv_nsec -= 1000000000;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
        for (due += mbps * 1000.0 / 8 / sizeof packet; due >= 1; due--)
            check(srt_sendmsg2(srt, packet, sizeof packet, NULL), "send");
    }
}

static void take(SRTSOCKET srt)
{
    char packet[2048];
    time_t last = time(NULL);

    for (;;) {
        check(srt_recvmsg2(srt, packet, sizeof packet, NULL), "receive");
        if (time(NULL) != last) {
            SRT_TRACEBSTATS stats;
            last = time(NULL);
            check(srt_bstats(srt, &stats, 0), "statistics");
            fprintf(stderr, "%ld %d\n", (long)stats.pktRecvTotal, stats.pktRcvDropTotal);
        }
    }
}

static void relay_to_srt(struct sockaddr_in from, SRTSOCKET srt)
{
    int udp = socket(AF_INET, SOCK_DGRAM, 0), size = 8 << 20;
    char packet[2048];

    setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (bind(udp, (struct sockaddr *)&from, sizeof from) < 0)
        exit(1);
    for (;;) {
        ssize_t bytes = recv(udp, packet, sizeof packet, 0);
        check(bytes < 0 ? 0 : srt_sendmsg2(srt, packet, bytes, NULL), "send");
    }
}

static void relay_to_udp(SRTSOCKET srt, struct sockaddr_in to)
{
    int udp = socket(AF_INET, SOCK_DGRAM, 0), size = 8 << 20;
    char packet[2048];

    setsockopt(udp, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (connect(udp, (struct sockaddr *)&to, sizeof to) < 0)
        exit(1);
    for (;;) {
        int bytes = srt_recvmsg2(srt, packet, sizeof packet, NULL);
        check(bytes, "receive");
        if (send(udp, packet, bytes, 0) < 0)
            perror("send");
    }
}

int main(int count, char **args)
{
    if (count < 4)
        return 2;
    const char *role = args[1], *passphrase = count > 4 ? args[4] : NULL;
    int calls = !strcmp(role, "send") || !strcmp(role, "make");
    struct sockaddr_in peer = loopback(args[calls ? 3 : 2]);

    check(srt_startup(), "startup");
    SRTSOCKET srt = new_socket(passphrase);
    if (calls) {
        check(srt_connect(srt, (struct sockaddr *)&peer, sizeof peer), "connect");
    } else {
        check(srt_bind(srt, (struct sockaddr *)&peer, sizeof peer), "bind");
        check(srt_listen(srt, 1), "listen");
        check(srt = srt_accept(srt, NULL, NULL), "accept");
    }
    if (!strcmp(role, "make"))
        make(srt, atol(args[2]));
    if (!strcmp(role, "take"))
        take(srt);
    if (calls)
        relay_to_srt(loopback(args[2]), srt);
    relay_to_udp(srt, loopback(args[3]));
}
