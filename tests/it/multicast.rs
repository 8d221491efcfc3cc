//! Multicast, TTL and DSCP as they are on the wire, and what the kernel drops.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::SockRef;

use crate::network::{Neighbour, in_own_network};
use crate::support::{
    Feed, PATIENCE, Rig, Sink, TS, V4, flow, free_port, perfect, roomy, source, udp, url_of, wait_until,
};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const SSM_GROUP: Ipv4Addr = Ipv4Addr::new(232, 1, 2, 3);

/// Group to group, on a named interface and on one named by its address.
#[test]
fn any_source_multicast_passes() {
    in_own_network("multicast", || {
        for interface in ["lo", "127.0.0.1"] {
            let rig = Rig::new();
            let [from, to] = [free_port(), free_port()].map(|port| SocketAddr::from((GROUP, port)));
            let sink = Sink::checking_on(member(to, None));
            let by = format!("iface={interface}");
            rig.apply("f", flow([url_of("udp", from, &by)], [url_of("udp", to, &by)]));
            let mut feed = Feed::new(from, TS);
            feed.send_to_all(500, &[&sink]);
            sink.assert_perfect(500);
        }
    });
}

#[test]
fn two_flows_may_listen_to_one_group() {
    in_own_network("multicast to two flows", || {
        let rig = Rig::new();
        let group = SocketAddr::from((GROUP, free_port()));
        let sinks = [Sink::new(V4), Sink::new(V4)];
        for (id, sink) in ["a", "b"].iter().zip(&sinks) {
            rig.apply(id, flow([url_of("udp", group, "iface=lo")], [sink.url()]));
        }
        let mut feed = Feed::new(group, TS);
        feed.send_to_all(200, &[&sinks[0], &sinks[1]]);
        sinks.iter().for_each(|sink| sink.assert_perfect(200));
    });
}

/// Only the named sender's packets come in, by interface name and by address.
#[test]
fn source_specific_multicast_takes_one_sender_only() {
    in_own_network("source-specific multicast", || {
        for interface in ["lo", "127.0.0.1"] {
            let rig = Rig::new();
            let group = SocketAddr::from((SSM_GROUP, free_port()));
            let sink = Sink::new(V4);
            rig.apply("f", flow([url_of("udp", group, &format!("iface={interface}&source=127.0.0.9"))], [sink.url()]));
            let from = |last| Feed::from(UdpSocket::bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap(), group, TS);
            let (mut wanted, mut other) = (from(9), from(8));
            for _ in 0..10 {
                (0..10).for_each(|_| other.send());
                wanted.send_to_all(10, &[&sink]);
            }
            assert_eq!(rig.source("f", "s1").packets, 100);
            sink.assert_perfect(100);
        }
    });
}

/// An RTP source joins with its media and its control socket.
#[test]
fn rtp_over_multicast_passes() {
    in_own_network("RTP over multicast", || {
        let rig = Rig::new();
        let group = SocketAddr::from((GROUP, free_port()));
        let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
        rig.apply("out", flow([udp(listen)], [url_of("rtp", group, "iface=lo")]));
        rig.apply("in", flow([url_of("rtp", group, "iface=lo")], [sink.url()]));
        let mut feed = Feed::new(listen, TS);
        feed.send_to_all(300, &[&sink]);
        sink.assert_perfect(300);
        assert_eq!(rig.source("in", "s1").drops.malformed, 0);
    });
}

/// Linux does not loop IPv6 multicast on loopback: it takes a real pair of interfaces.
#[test]
fn groups_of_ipv6_pass() {
    in_own_network("IPv6 multicast", || {
        let neighbour = Neighbour::new();
        for query in ["iface=near", "iface=near&source=fd09::2"] {
            let rig = Rig::new();
            let port = free_port();
            let (from, to): (SocketAddr, SocketAddr) =
                (format!("[ff35::123]:{port}").parse().unwrap(), format!("[ff15::123]:{port}").parse().unwrap());
            let there = neighbour.run(move || {
                let socket = roomy(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
                let SocketAddr::V6(group) = to else { unreachable!("an IPv6 group") };
                socket.join_multicast_v6(group.ip(), interface_index(c"far")).unwrap();
                Sink::checking_on(socket)
            });
            rig.apply("f", flow([url_of("udp", from, query)], [url_of("udp", to, "iface=near&ttl=2")]));
            let mut feed = neighbour.run(move || {
                let socket = UdpSocket::bind("[fd09::2]:0").unwrap();
                SockRef::from(&socket).set_multicast_if_v6(interface_index(c"far")).unwrap();
                Feed::from(socket, from, TS)
            });
            feed.send_to_all(200, &[&there]);
            there.assert_perfect(200);
        }
    });
}

/// Multicast leaves by the chosen one of two interfaces.
#[test]
fn an_output_leaves_by_its_interface() {
    in_own_network("multicast by an interface", || {
        let neighbour = Neighbour::new();
        let group = SocketAddr::from((GROUP, free_port()));
        let there = neighbour.run(move || Sink::checking_on(member(group, Some(Neighbour::THERE))));
        for by in [Neighbour::INTERFACE.to_string(), Neighbour::HERE.to_string()] {
            let rig = Rig::new();
            let (listen, before) = ((V4, free_port()).into(), there.count());
            rig.apply("f", flow([udp(listen)], [url_of("udp", group, &format!("iface={by}"))]));
            let mut feed = Feed::new(listen, TS);
            (0..100).for_each(|_| feed.send());
            there.wait(before + 100);
        }
    });
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    let rig = Rig::new();
    let error = rig.try_apply("f", flow(["udp://239.1.2.3:5000?iface=nosuchif0"], ["udp://127.0.0.1:9"])).unwrap_err();
    assert_eq!(error.to_string(), "sources[0]: there is no interface nosuchif0 on this machine");
}

#[test]
fn ttl_and_dscp_are_on_the_wire() {
    let rig = Rig::new();
    for (ip, scheme) in [("127.0.0.1", "udp"), ("[::1]", "udp"), ("127.0.0.1", "rtp")] {
        let listen = (V4, free_port()).into();
        let to: SocketAddr = format!("{ip}:{}", free_port()).parse().unwrap();
        let receiver = watching(to);
        for (query, expected) in [("ttl=7&dscp=46", (7, 46)), ("", (64, 0)), ("ttl=255&dscp=10", (255, 10))] {
            rig.apply("f", flow([udp(listen)], [url_of(scheme, to, query)]));
            Feed::new(listen, TS).send();
            assert_eq!(ttl_and_dscp(&receiver), expected, "{scheme}://{to}?{query}");
        }
        rig.stop("f");
    }
}

/// Multicast has a default TTL of its own.
#[test]
fn multicast_has_its_own_ttl() {
    in_own_network("TTL of multicast", || {
        let rig = Rig::new();
        let (listen, group) = ((V4, free_port()).into(), SocketAddr::from((GROUP, free_port())));
        let receiver = member(group, None);
        watch(&receiver, true);
        for (query, ttl) in [("iface=lo", 16), ("iface=lo&ttl=3", 3)] {
            rig.apply("f", flow([udp(listen)], [url_of("udp", group, query)]));
            Feed::new(listen, TS).send();
            assert_eq!(ttl_and_dscp(&receiver).0, ttl);
        }
    });
}

/// A burst into a buffer of a few packets: what the kernel had no room for is counted, exactly.
#[test]
fn what_the_kernel_drops_is_counted() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    rig.apply("f", flow([url_of("udp", listen, "rcvbuf=4096")], [sink.url()]));
    let mut feed = Feed::new(listen, TS);
    wait_until("drops", || {
        (0..500).for_each(|_| feed.send());
        rig.source("f", "s1").drops.kernel > 0
    });
    // The kernel tells the count with the next datagram that it delivers.
    wait_until("all of them", || {
        feed.send();
        let source = rig.source("f", "s1");
        source.packets + source.drops.kernel == feed.made()
    });
    let source = rig.source("f", "s1");
    sink.wait(source.packets);
    assert_eq!(sink.report(feed.made()).lost, source.drops.kernel);
}

/// Sources with two interfaces for one group keep their packets apart.
#[test]
fn a_group_is_taken_from_the_chosen_interface_only() {
    in_own_network("a group on two interfaces", || {
        let neighbour = Neighbour::new();
        let group = SocketAddr::from((GROUP, free_port()));
        let rig = Rig::new();
        let (near, lo) = (Sink::new(V4), Sink::new(V4));
        let mut config = flow([url_of("udp", group, "iface=lo")], [lo.url()]);
        rig.apply("lo", config.clone());
        config = flow([udp(group)], [near.url()]);
        config.sources = vec![source("s1", &url_of("udp", group, "iface=near"))];
        rig.apply("near", config);
        let mut feed = Feed::new(group, TS);
        feed.send_to_all(50, &[&lo]);
        neighbour.run(move || {
            let socket = UdpSocket::bind((Neighbour::THERE, 0)).unwrap();
            SockRef::from(&socket).set_multicast_if_v4(&Neighbour::THERE).unwrap();
            let mut feed = Feed::from(socket, group, TS);
            (0..70).for_each(|_| feed.send());
        });
        near.wait(70);
        assert_eq!((lo.report(50), near.report(70)), (perfect(50), perfect(70)));
    });
}

/// A socket that has joined `group`, on the interface with the address, else on loopback.
fn member(group: SocketAddr, interface: Option<Ipv4Addr>) -> UdpSocket {
    let SocketAddr::V4(v4) = group else { unreachable!("an IPv4 group") };
    let socket = roomy(group);
    socket.join_multicast_v4(v4.ip(), &interface.unwrap_or(Ipv4Addr::LOCALHOST)).unwrap();
    socket
}

#[allow(unsafe_code, reason = "no crate in the tree wraps it")]
fn interface_index(name: &std::ffi::CStr) -> u32 {
    // SAFETY: a valid C string.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// A socket that is told TTL and traffic class of what it receives.
fn watching(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    watch(&socket, address.is_ipv4());
    socket
}

#[allow(unsafe_code, reason = "no crate in the tree sets these options")]
fn watch(socket: &UdpSocket, is_ipv4: bool) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let options = if is_ipv4 {
        [(libc::IPPROTO_IP, libc::IP_RECVTTL), (libc::IPPROTO_IP, libc::IP_RECVTOS)]
    } else {
        [(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT), (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)]
    };
    for (level, option) in options {
        let on = 1_i32;
        // SAFETY: pointer and length describe `on`.
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size_of::<i32>() as u32)
        };
        assert_eq!(result, 0);
    }
}

#[allow(unsafe_code, reason = "the standard library reads no control messages")]
fn ttl_and_dscp(socket: &UdpSocket) -> (u8, u8) {
    let mut bytes = [0_u8; 2_048];
    let mut control = [0_u64; 16];
    let mut iovec = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zero is a valid message header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut iovec;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header points into memory that outlives the call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    assert!(len > 0, "{}", std::io::Error::last_os_error());
    let (mut ttl, mut class) = (0, 0);
    // SAFETY: the kernel has filled the control area; the macros stay within it. A TTL and an IPv6 class are an int, an
    // IPv4 TOS is a byte.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            let data = libc::CMSG_DATA(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    ttl = std::ptr::read_unaligned::<i32>(data.cast()) as u8;
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => class = *data,
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    class = std::ptr::read_unaligned::<i32>(data.cast()) as u8;
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    (ttl, class >> 2)
}
