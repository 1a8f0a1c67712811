//! A real server on the loopback interface, right or wrong in every way.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use super::*;
use crate::hooks::testing::{notification, on_runtime};

/// Serves one connection with `serve`, and returns where.
fn server(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
    thread::spawn(move || serve(listener.accept().unwrap().0));
    url
}

fn answer(text: &'static str) -> String {
    server(move |mut stream| {
        read_request(&mut stream);
        stream.write_all(text.as_bytes()).unwrap();
    })
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    let head = String::from_utf8(request).unwrap().to_lowercase();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "))
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

fn post(url: &str, limit: Duration) -> Result<u16, PostError> {
    let webhook = Webhook {
        url: url.parse().unwrap(),
        format: WebhookFormat::Json,
        limit,
        resend_every: Duration::from_secs(60),
    };
    on_runtime(async { webhook.send("page", &notification("why")).await })
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn the_server_gets_the_document() {
    let (send, receive) = std::sync::mpsc::channel();
    let url = server(move |mut stream| {
        send.send(read_request(&mut stream)).unwrap();
        // What follows a good answer's head does not matter.
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    });
    assert_eq!(post(&url, LONG).unwrap(), 204);
    let request = receive.recv_timeout(LONG).unwrap();
    assert!(request.starts_with("post /hook?x=1 http/1.1\r\n"), "{request}");
    assert!(
        request.contains("\r\ncontent-type: application/json\r\n"),
        "{request}"
    );
    let body: serde_json::Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["hook"], "page");
    assert_eq!(body["findings"][0]["summary"], "why");
    assert_eq!(body["findings"][0]["at"], "2023-11-14T22:13:22.000000000Z");
}

#[test]
fn what_is_no_success_says_whether_it_may_become_one() {
    for (text, words, temporary) in [
        (
            "HTTP/1.1 500 x\r\ncontent-length: 5\r\n\r\nbro\x1bk",
            "the server answered 500: bro\\x1bk",
            true,
        ),
        ("HTTP/1.1 404 x\r\n\r\n", "the server answered 404", false),
        (
            "HTTP/1.1 302 x\r\nlocation: http://other/\r\n\r\n",
            "the server answered 302: it is at http://other/, say so in `webhook`",
            false,
        ),
        (
            "HTTP/1.1 429 x\r\nretry-after: 7\r\n\r\n",
            "the server answered 429",
            true,
        ),
        ("no http", "the connection broke", true),
        ("", "the connection broke", true),
    ] {
        let error = post(&answer(text), LONG).unwrap_err();
        assert!(error.to_string().starts_with(words), "{error}");
        assert_eq!(error.is_temporary(), temporary, "{error}");
        let pause = text.contains("retry-after").then(|| Duration::from_secs(7));
        assert_eq!(error.retry_after(), pause);
    }
}

#[test]
fn a_server_that_is_not_there_is_told_apart() {
    // The port is taken and nobody listens at it.
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    use std::os::fd::AsRawFd;
    let any = nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, 0);
    nix::sys::socket::bind(socket.as_raw_fd(), &any).unwrap();
    let bound: nix::sys::socket::SockaddrIn = nix::sys::socket::getsockname(socket.as_raw_fd()).unwrap();
    let error = post(&format!("http://127.0.0.1:{}", bound.port()), LONG).unwrap_err();
    let expected = format!(
        "cannot connect to 127.0.0.1:{}: Connection refused (os error 111)",
        bound.port()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_server_that_answers_slowly_for_ever_has_a_limit() {
    let url = server(|mut stream| {
        read_request(&mut stream);
        // A byte at a time, never the end of the head; until the other side has had enough.
        while stream.write_all(b"H").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    // hyper refuses what can't become an answer, so this one could.
    let drip = server(|mut stream| {
        read_request(&mut stream);
        let head = b"HTTP/1.1 200 OK\r\nx-slow: "
            .iter()
            .chain(std::iter::repeat(&b'x'));
        for byte in head {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    let silent = server(|mut stream| {
        read_request(&mut stream);
        _ = stream.read(&mut [0]);
    });
    let limit = Duration::from_millis(700);
    for url in [drip, silent] {
        let began = clock::now();
        let error = post(&url, limit).unwrap_err();
        assert_eq!(error.to_string(), "timeout (answer) after 700ms");
        let took = clock::now().since(began);
        assert!(took < limit * 10, "{took:?}");
        assert!(error.is_temporary());
    }
    assert!(post(&url, limit).unwrap_err().is_temporary());
}

#[test]
fn a_server_that_takes_no_connection_has_a_limit() {
    // A queue of one, and it is full: the kernel drops what comes then.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    use std::os::fd::AsFd;
    nix::sys::socket::listen(&listener.as_fd(), nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut full = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        full.push(stream);
        assert!(full.len() < 100, "the queue never gets full");
    }
    let error = post(&format!("http://{address}/"), Duration::from_millis(500)).unwrap_err();
    assert_eq!(error.to_string(), "timeout (connect) after 500ms");
}
