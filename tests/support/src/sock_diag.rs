//! The kernel's TCP sockets through netlink (sock_diag(7)), where one may ask for a single port.
//!
//! `/proc/net/tcp` says the same, and prints thousands of rows for it after a test with thousands of clients.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

use crate::proc_fs::TcpSocket;

/// Message type SOCK_DIAG_BY_FAMILY (linux/sock_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// Length of a `struct nlmsghdr`.
const HEADER: usize = 16;

/// Length of a `struct inet_diag_req_v2` (linux/inet_diag.h).
const REQUEST: usize = 56;

/// Length of a `struct inet_diag_msg`.
const ANSWER: usize = 72;

/// The number of a listener's state.
const LISTEN: u8 = 10;

/// The TCP sockets, but for those in TIME_WAIT, whose own end has this port.
///
/// # Errors
///
/// Where the kernel was built without sock_diag for TCP.
pub(crate) fn tcp_sockets(port: u16) -> nix::Result<Vec<TcpSocket>> {
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        send(
            kernel.as_raw_fd(),
            &request(family as u8, port),
            MsgFlags::empty(),
        )?;
        read_answers(&kernel, &mut sockets)?;
    }
    Ok(sockets)
}

fn request(family: u8, port: u16) -> [u8; HEADER + REQUEST] {
    const TIME_WAIT: u32 = 1 << 6;
    let mut message = [0; HEADER + REQUEST];
    let mut put = |at: usize, bytes: &[u8]| message[at..at + bytes.len()].copy_from_slice(bytes);
    // nlmsg_len, nlmsg_type, nlmsg_flags
    put(0, &((HEADER + REQUEST) as u32).to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(
        6,
        &((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes(),
    );
    // sdiag_family, sdiag_protocol, idiag_states, id.idiag_sport
    put(HEADER, &[family, libc::IPPROTO_TCP as u8]);
    put(HEADER + 4, &(!TIME_WAIT).to_ne_bytes());
    put(HEADER + 8, &port.to_be_bytes());
    message
}

fn read_answers(kernel: &OwnedFd, sockets: &mut Vec<TcpSocket>) -> nix::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let received = recv(kernel.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..received];
        while let Some(&header) = rest.first_chunk::<HEADER>() {
            let [l0, l1, l2, l3, t0, t1, ..] = header;
            let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
            let message = rest.get(HEADER..len).ok_or(Errno::EBADMSG)?;
            match i32::from(u16::from_ne_bytes([t0, t1])) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => return Err(error(message)),
                _ => sockets.extend(message.first_chunk().map(answer)),
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// `struct nlmsgerr` begins with the error's negated number.
fn error(message: &[u8]) -> Errno {
    let number = message
        .first_chunk()
        .map_or(libc::EBADMSG, |&bytes| -i32::from_ne_bytes(bytes));
    Errno::from_raw(number)
}

fn answer(message: &[u8; ANSWER]) -> TcpSocket {
    let number = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().expect("4 bytes"));
    let is_ipv6 = i32::from(message[0]) == libc::AF_INET6;
    let address = |ip: usize, port: usize| {
        let port = u16::from_be_bytes([message[port], message[port + 1]]);
        let ip: [u8; 16] = message[ip..ip + 16].try_into().expect("16 bytes");
        let ip = match is_ipv6 {
            true => IpAddr::from(ip),
            false => IpAddr::from([ip[0], ip[1], ip[2], ip[3]]),
        };
        SocketAddr::new(ip, port)
    };
    // idiag_sport, idiag_dport, idiag_src, idiag_dst; further on idiag_rqueue, idiag_inode
    TcpSocket {
        local: address(8, 4),
        remote: address(24, 6),
        listens: message[1] == LISTEN,
        unread: number(56) as usize,
        inode: number(68).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{PATIENCE, proc_fs, wait_until};

    #[test]
    fn agrees_with_the_table_in_proc() {
        for localhost in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(localhost) else {
                continue;
            };
            let address = listener.local_addr().unwrap();
            // The end that closes first is left in TIME_WAIT.
            let closed_second = TcpStream::connect(address).unwrap();
            drop(listener.accept().unwrap());
            drop(closed_second);
            let mut client = TcpStream::connect(address).unwrap();
            let _accepted = listener.accept().unwrap();
            client.write_all(b"unread").unwrap();
            let _waiting = TcpStream::connect(address).unwrap();
            wait_until("both tables say the same", PATIENCE, || {
                // Somebody else may have the same port of another address.
                let sorted = |mut sockets: Vec<TcpSocket>| {
                    sockets.retain(|socket| socket.local.ip() == address.ip());
                    sockets.sort_by_key(|socket| socket.remote);
                    sockets
                };
                let seen = sorted(tcp_sockets(address.port()).unwrap());
                seen.len() == 3
                    && seen
                        .iter()
                        .any(|socket| socket.unread == 6 && socket.inode != 0)
                    && seen == sorted(proc_fs::tcp_sockets_in_proc(address.port()))
            })
            .unwrap();
        }
    }
}
