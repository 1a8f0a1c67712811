//! Servers that hang, each in its way.

use std::{
    os::{fd::AsRawFd, unix::net},
    path::Path,
    sync::{Arc, Mutex},
};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::*;
use crate::{api::types::Health, clock, sources::testing::TempDir};

const LIMITS: Timeouts = Timeouts {
    connect: Duration::from_millis(300),
    write: Duration::from_millis(400),
    read: Duration::from_millis(500),
};

/// Blocks on one thread, as the commands do.
fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

struct Server {
    _dir: TempDir,
    path: PathBuf,
}

/// Speaks to each client by `talk`.
fn serve<F: Future<Output = ()> + 'static>(name: &str, talk: impl Fn(UnixStream) -> F + 'static) -> Server {
    let dir = TempDir::new(name);
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(talk(stream));
        }
    });
    Server { _dir: dir, path }
}

fn local(work: impl Future<Output = ()>) {
    block(tokio::task::LocalSet::new().run_until(work));
}

async fn health(path: &Path) -> Result<Health, ClientError> {
    Client::new(path, LIMITS).get("/healthz").await
}

/// Takes at least as long as its limit; how much longer is the machine's affair.
#[track_caller]
fn assert_late(phase: Phase, took: Duration, answer: Result<Health, ClientError>) {
    let e = answer.unwrap_err();
    assert_eq!(e.timeout(), Some(phase), "{e}");
    let limit = match phase {
        Phase::Connect => LIMITS.connect,
        Phase::Write => LIMITS.write,
        Phase::Read => LIMITS.read,
    };
    assert!(took >= limit, "{phase}: {took:?}");
    assert!(e.to_string().contains(&phase.to_string()), "{e}");
}

/// Reads the head of a question.
async fn question(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

const OK: &str = r#"{"v":1,"ok":true,"reason":null}"#;

fn response(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn an_answer_is_an_answer() {
    local(async {
        let asked = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&asked);
        let server = serve("client-ok", move |mut stream| {
            let heard = Arc::clone(&heard);
            async move {
                *heard.lock().unwrap() = question(&mut stream).await;
                stream.write_all(response(OK).as_bytes()).await.unwrap();
            }
        });
        assert!(health(&server.path).await.unwrap().ok);
        let asked = asked.lock().unwrap().clone();
        assert!(
            asked.starts_with("GET /healthz HTTP/1.1\r\nhost: probe\r\n"),
            "{asked}"
        );
    });
}

#[test]
fn one_that_accepts_and_never_answers() {
    local(async {
        let server = serve("client-mute", |mut stream| async move {
            question(&mut stream).await;
            std::future::pending::<()>().await;
        });
        let began = clock::now();
        let answer = health(&server.path).await;
        assert_late(Phase::Read, clock::now().since(began), answer);
    });
}

#[test]
fn one_that_answers_half() {
    local(async {
        let server = serve("client-half", |mut stream| async move {
            question(&mut stream).await;
            let text = response(OK);
            stream
                .write_all(&text.as_bytes()[..text.len() - 5])
                .await
                .unwrap();
            std::future::pending::<()>().await;
        });
        let began = clock::now();
        let answer = health(&server.path).await;
        assert_late(Phase::Read, clock::now().since(began), answer);

        // One that hangs up is told apart.
        let server = serve("client-cut", |mut stream| async move {
            question(&mut stream).await;
            let text = response(OK);
            stream
                .write_all(&text.as_bytes()[..text.len() - 5])
                .await
                .unwrap();
        });
        let e = health(&server.path).await.unwrap_err();
        assert!(matches!(e, ClientError::Broken { .. }), "{e}");
    });
}

#[test]
fn one_that_answers_drop_by_drop() {
    local(async {
        let server = serve("client-drops", |mut stream| async move {
            question(&mut stream).await;
            for byte in response(OK).bytes() {
                tokio::time::sleep(Duration::from_millis(40)).await;
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        });
        let began = clock::now();
        let answer = health(&server.path).await;
        assert_late(Phase::Read, clock::now().since(began), answer);
    });
}

#[test]
fn one_that_does_not_take_the_question() {
    local(async {
        let server = serve("client-deaf", |stream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        });
        let client = Client::new(&server.path, LIMITS);
        // More than the socket's buffers hold.
        let long = "x".repeat(8 << 20);
        let began = clock::now();
        let answer: Result<Health, _> = client.post("/v1/silences", &long).await;
        assert_late(Phase::Write, clock::now().since(began), answer);
    });
}

/// A listener whose queue has no room.
fn full(path: &Path) -> (std::os::fd::OwnedFd, Vec<net::UnixStream>) {
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&fd, Backlog::new(0).unwrap()).unwrap();
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let mut waiting = Vec::new();
    loop {
        let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        match nix::sys::socket::connect(client.as_raw_fd(), &UnixAddr::new(path).unwrap()) {
            Ok(()) => waiting.push(net::UnixStream::from(client)),
            Err(nix::Error::EAGAIN) => return (fd, waiting),
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn one_whose_queue_is_full() {
    let dir = TempDir::new("client-full");
    let path = dir.path().join("s");
    let (listener, waiting) = full(&path);
    assert!(!waiting.is_empty());
    block(async {
        let began = clock::now();
        let answer = health(&path).await;
        assert_late(Phase::Connect, clock::now().since(began), answer);
    });

    // It is waited for until there is room.
    let listener = net::UnixListener::from(listener);
    let patient = Timeouts {
        connect: Duration::from_secs(60),
        read: Duration::from_secs(60),
        ..LIMITS
    };
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        // Those that waited, and the one who is to be answered.
        for _ in 0..waiting.len() {
            drop(listener.accept().unwrap());
        }
        let (mut stream, _) = listener.accept().unwrap();
        let mut some = [0; 256];
        assert!(stream.read(&mut some).unwrap() > 0);
        stream.write_all(response(OK).as_bytes()).unwrap();
    });
    let answer: Result<Health, _> = block(Client::new(&path, patient).get("/healthz"));
    assert!(answer.unwrap().ok);
    server.join().unwrap();
}

#[test]
fn nobody_is_there() {
    let dir = TempDir::new("client-none");
    let path = dir.path().join("s");
    let ask = || block(health(&path)).unwrap_err();
    let e = ask();
    assert!(matches!(e, ClientError::NotRunning { .. }), "{e}");
    assert!(e.is_absence());
    drop(net::UnixListener::bind(&path).unwrap());
    let e = ask();
    assert!(matches!(e, ClientError::NotRunning { .. }), "{e}");
    assert!(e.to_string().contains("probe daemon"), "{e}");
}

#[test]
fn a_refusal_says_why() {
    local(async {
        let server = serve("client-refuse", |mut stream| async move {
            question(&mut stream).await;
            let body = r#"{"v":1,"error":"no service is named \"a\""}"#;
            let text = response(body).replace("200 OK", "404 Not Found");
            stream.write_all(text.as_bytes()).await.unwrap();
        });
        let e = health(&server.path).await.unwrap_err();
        assert_eq!(e.to_string(), r#"no service is named "a""#);
        assert!(matches!(e, ClientError::Refused { status: 404, .. }));
    });
}

#[test]
fn lines_come_as_they_are_said() {
    local(async {
        let server = serve("client-lines", |mut stream| async move {
            question(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nprobe-cursor: 7\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            // Pieces end where they please.
            for piece in ["{\"a\":1}\n{\"b\"", ":2}\n", "\n{\"c\":3"] {
                let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
                stream.write_all(chunk.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        });
        let mut lines = Client::new(&server.path, LIMITS)
            .lines("/v1/events")
            .await
            .unwrap();
        assert_eq!(lines.header("probe-cursor"), Some("7"));
        let mut got = Vec::new();
        let end = loop {
            match lines.next().await {
                Ok(Some(line)) => got.push(String::from_utf8(line.to_vec()).unwrap()),
                other => break other,
            }
        };
        assert_eq!(got, [r#"{"a":1}"#, r#"{"b":2}"#, ""]);
        // Half a line is none.
        assert!(matches!(end, Err(ClientError::Broken { .. })));
    });
}

#[test]
fn a_stream_that_is_cut_off_goes_on_behind_its_last_line() {
    local(async {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let line = |n: u64| format!("{{\"epoch\":\"e\",\"cursor\":{n}}}");
        let server = serve("client-follow", move |mut stream| {
            let heard = Arc::clone(&heard);
            async move {
                let question = question(&mut stream).await;
                let path = question.split(' ').nth(1).unwrap_or_default().to_owned();
                let connection = {
                    let mut heard = heard.lock().unwrap();
                    heard.push(path);
                    heard.len()
                };
                let head = "HTTP/1.1 200 OK\r\nprobe-epoch: e\r\nprobe-cursor: 3\r\n\r\n";
                let text = match connection {
                    // Nothing is said before the end.
                    1 => head.to_owned(),
                    // It ends in the middle of a line.
                    2 => format!("{head}{}\n{}\n{{\"epoch\":", line(4), line(5)),
                    // It is of no use to anybody now.
                    3 => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(),
                    _ => format!("{head}{}\n", line(6)),
                };
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        let client = Client::new(&server.path, LIMITS);
        let mut stream = Follow::new(client, vec![("kind", "signal".into())], Some("10m".into()));
        stream.begin().await.unwrap();
        let mut told = String::new();
        while stream.since() != Some("e.6") {
            match stream.next().await.unwrap() {
                Told::Line(json) => told += std::str::from_utf8(&json).unwrap(),
                Told::Gone(_) => told += " gone ",
                Told::Back => told += " back ",
            }
        }
        let expected = format!(" gone  back {}{} gone  back {}", line(4), line(5), line(6));
        assert_eq!(told, expected);
        assert_eq!(
            *asked.lock().unwrap(),
            [
                "/v1/events?kind=signal&since=10m",
                "/v1/events?kind=signal&since=e.3",
                "/v1/events?kind=signal&since=e.5",
                "/v1/events?kind=signal&since=e.5",
            ]
        );
    });
}

#[test]
fn queries_are_escaped() {
    let parameters = [("a", Some("ü&=x")), ("b", None), ("c", Some("1-2.3"))];
    assert_eq!(query("/p", &parameters), "/p?a=%C3%BC%26%3Dx&c=1-2.3");
    assert_eq!(query("/p", &[]), "/p");
    assert_eq!(escape("a/b"), "a%2Fb");
}
