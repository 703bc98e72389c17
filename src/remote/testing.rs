//! A server that plays what a test tells it, for tests of clients.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens on a connection, in order. After the last step the connection is closed.
#[derive(Clone)]
pub(super) enum Step {
    /// Reads a request to its end.
    Read,
    /// Reads the head of a request.
    ReadHead,
    /// Sends bytes.
    Write(Vec<u8>),
    /// Sends bytes one by one, one a millisecond, for ever.
    Drip(Vec<u8>),
    /// Does nothing for as long as the test runs.
    Hang,
    /// Sends no more, and reads on to the end.
    CloseWrite,
}

use Step::{Read as ReadStep, Write as WriteStep};

/// A server on a port of its own, or a unix socket. It ends with the process.
pub(super) struct Mock {
    /// Where it listens: `127.0.0.1:PORT`.
    pub(super) authority: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Mock {
    /// Plays one list of steps on each connection; the last list on all further ones.
    pub(super) fn start(connections: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let accept = move || {
            let stream = listener.accept().unwrap().0;
            (stream.try_clone().unwrap(), stream)
        };
        let close = |stream: &std::net::TcpStream| drop(stream.shutdown(Shutdown::Write));
        Self { authority, requests: serve(accept, close, connections) }
    }

    /// As [`Mock::start`], on a unix socket.
    pub(super) fn start_unix(path: &Path, connections: Vec<Vec<Step>>) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let accept = move || {
            let stream = listener.accept().unwrap().0;
            (stream.try_clone().unwrap(), stream)
        };
        let close = |stream: &std::os::unix::net::UnixStream| drop(stream.shutdown(Shutdown::Write));
        Self { authority: String::new(), requests: serve(accept, close, connections) }
    }

    /// Answers each request with these bytes, on any number of connections, and closes them.
    pub(super) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        Self::start(vec![vec![ReadStep, WriteStep(answer.into())]])
    }

    /// The requests that were read, as text with what is not UTF-8 replaced.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve<S: Read + Write + Send + 'static>(
    accept: impl Fn() -> (S, S) + Send + 'static,
    close_write: impl Fn(&S) + Send + Copy + 'static,
    connections: Vec<Vec<Step>>,
) -> Arc<Mutex<Vec<String>>> {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = requests.clone();
    thread::spawn(move || {
        for index in 0.. {
            let (mut reader, writer) = accept();
            let steps = connections[index.min(connections.len() - 1)].clone();
            let kept = kept.clone();
            thread::spawn(move || play(&mut reader, writer, close_write, steps, &kept));
        }
    });
    requests
}

fn play<S: Read + Write>(
    reader: &mut S,
    mut writer: S,
    close_write: impl Fn(&S),
    steps: Vec<Step>,
    requests: &Mutex<Vec<String>>,
) {
    for step in steps {
        // A client that has gone is as good as one that reads.
        let _ = match step {
            ReadStep | Step::ReadHead => {
                let request = read_request(reader, matches!(step, ReadStep));
                requests.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                Ok(())
            }
            WriteStep(bytes) => writer.write_all(&bytes),
            Step::Drip(bytes) => bytes.iter().cycle().try_for_each(|byte| {
                thread::sleep(Duration::from_millis(1));
                writer.write_all(&[*byte])
            }),
            Step::Hang => loop {
                thread::park();
            },
            Step::CloseWrite => {
                close_write(&writer);
                reader.read_to_end(&mut Vec::new()).map(drop)
            }
        };
    }
}

/// Reads to the end of the head, or of the request: as long as `Content-Length` says, or to the last chunk.
fn read_request(reader: &mut impl Read, with_body: bool) -> Vec<u8> {
    let mut request = Vec::new();
    let mut byte = [0; 1];
    let mut read = |request: &mut Vec<u8>| {
        let is_read = reader.read(&mut byte).is_ok_and(|count| count > 0);
        if is_read {
            request.push(byte[0]);
        }
        is_read
    };
    while !request.ends_with(b"\r\n\r\n") && read(&mut request) {}
    let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
    if with_body && head.contains("transfer-encoding: chunked") {
        while !request.ends_with(b"\r\n0\r\n\r\n") && read(&mut request) {}
    } else if let (true, Some(at)) = (with_body, head.find("content-length: ")) {
        let digits: String = head[at + 16..].chars().take_while(char::is_ascii_digit).collect();
        let end = request.len() + digits.parse::<usize>().unwrap();
        while request.len() < end && read(&mut request) {}
    }
    request
}

/// An answer as Kubo makes it: 200, chunked, one chunk for each of `chunks`, the trailer announced but not sent.
pub(super) fn ok(chunks: &[&[u8]]) -> Vec<u8> {
    let mut answer = ok_unfinished(chunks);
    answer.extend(b"0\r\n\r\n");
    answer
}

/// As [`ok`], with the trailer.
pub(super) fn ok_with_trailer(chunks: &[&[u8]], error: &str) -> Vec<u8> {
    let mut answer = ok_unfinished(chunks);
    answer.extend(format!("0\r\nX-Stream-Error: {error}\r\n\r\n").bytes());
    answer
}

/// As [`ok`], but the last chunk does not come.
pub(super) fn ok_unfinished(chunks: &[&[u8]]) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: kubo/0.43.1\r\n\
        Trailer: X-Stream-Error\r\nTransfer-Encoding: chunked\r\n\r\n"
        .to_vec();
    for chunk in chunks {
        answer.extend(format!("{:x}\r\n", chunk.len()).bytes());
        answer.extend(*chunk);
        answer.extend(b"\r\n");
    }
    answer
}

/// An answer with this status line and body, and with headers that each end with CR and LF.
pub(super) fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
