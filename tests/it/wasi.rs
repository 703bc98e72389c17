//! What the interfaces of WASI 0.2 promise, by a guest of our own for each behaviour that a program of wasmtime 48 pins
//! (`crates/test-programs/src/bin/p2_*.rs` there, with their drivers in `crates/wasi/tests/all/p2` and `tests/all/cli_tests.rs`).
//!
//! | their program | what it pins | where that is tested here |
//! |---|---|---|
//! | `cli_args`, `cli_argv0` | arguments arrive as they are | `run::arguments_arrive_as_they_are`; the first is always `main.wasm` |
//! | `cli_env`, `cli_large_env` | so does the environment, also a large one | `run::the_environment_is_what_was_given`, [`a_large_environment_arrives`] |
//! | `cli_initial_cwd` | there is a directory to begin in | [`the_working_directory_is_not_said`] |
//! | `cli_exit_*` | codes, panics | [`a_return_is_a_success`], `run::exit_codes_survive`, `run::std_knows_only_success_and_failure`, `run::a_panic_is_shown_and_a_trap` |
//! | `cli_default_clocks`, `clocks_zero_wait`, `cli_sleep`, `sleep` | clocks go on, waits end, also those for what has been | [`clocks_go_on`] |
//! | `cli_sleep_forever` | a wait without end can be ended | `run::signals_end_a_guest_whatever_it_does`, `hostile::those_who_compute` |
//! | `random` | as many bytes as are asked for, one seed | [`random_bytes_are_as_many_as_asked_for`], `hostile::those_who_ask_for_too_much` |
//! | `cli_hello_stdout`, `cli_much_stdout` | all of it arrives | [`all_output_arrives`] |
//! | `cli_stdout_epipe` | a reader that has gone is the end of the stream | [`a_reader_that_has_gone_is_the_end`] |
//! | `cli_stdio_write_flushes` | what is flushed is there before the input | [`a_prompt_is_there_before_the_input`] |
//! | `cli_stdin`, `cli_stdin_empty`, `cli_splice_stdin` | input is read, spliced, and not read | `run::stdin_is_streamed_to_its_end`, [`input_is_read_and_spliced`] |
//! | `cli_stdin_eisdir` | an error of stdin says which | [`an_error_of_stdin_says_which`] |
//! | `pollable_correct`, `pollable_traps` | a list may have one pollable twice, and not none | [`pollables_can_be_polled_together`] |
//! | `stream_pollable_correct`, `stream_pollable_traps` | pollables can be used again, and go before their stream | [`pollables_go_before_their_streams`] |
//! | `cli_directory_list`, `cli_file_read`, `api_read_only` | directories are listed, files read, images not changed | `run::the_image_is_the_read_only_root`, [`files_are_read_and_not_changed`] |
//! | `cli_file_append`, `cli_file_dir_sync`, `file_read_write` | appending, syncing, streams of files | [`files_are_written`] |
//! | `file_hardlink_across_perms`, `file_rename_across_perms` | nothing gets from where it cannot be written to where it can | [`files_are_read_and_not_changed`]; the error is that of two file systems |
//! | `file_stream_not_permitted`, `file_truncation_readonly` | nothing is written that is open to be read | [`files_are_read_and_not_changed`]; the errors are those that POSIX has for it, EBADF and EROFS |
//! | `file_settime_overflow` | a time that there cannot be is an error | [`files_are_written`] |
//! | `path_rename_trailing_slashes` | a slash at the end means a directory | [`files_are_written`] |
//! | `cli_hostcall_fuel` | what one call may bring along, and at once be asked for | [`lengths_have_bounds`], `hostile::those_who_ask_for_too_much` |
//! | `cli_max_resources`, `cli_many_resources` | handles have a limit | `hostile::those_who_take_handles` |
//! | `cli_no_tcp`, `cli_no_udp`, `cli_no_ip_name_lookup` | no network without a grant | `hostile::those_who_take_handles` |
//! | `tcp_connect`, `tcp_states`, `tcp_sockopts`, `tcp_streams`, `tcp_busy_poll` | connecting, and what a socket can do when | [`sockets_connect_as_far_as_the_grant_goes`] |
//! | `udp_connect`, `udp_states`, `udp_stream`, `udp_sockopts`, `udp_send_too_much`, `udp_send_to_closed_receiver` | datagrams | [`sockets_connect_as_far_as_the_grant_goes`] |
//! | `ip_name_lookup` | names and addresses, and what is neither | [`sockets_connect_as_far_as_the_grant_goes`] |
//!
//! Not here: `tcp_listen`, `tcp_bind`, `udp_bind`, `tcp_sample_application`, `udp_sample_application`, since no cell listens or
//! chooses an address, which [`sockets_connect_as_far_as_the_grant_goes`] tests; `cli_serve_*`, `http_*`, `api_proxy*`,
//! `cli_http_headers`, `tls_sample_application`, since there is no `wasi:http` and no `wasi:tls`; `api_reactor`,
//! `cli_invoke_async`, since a cell is a command; `api_time`, since nobody sets a cell's clock; `cli_multiple_preopens`, since a
//! cell has one directory, `/`, with all that is mounted in it; `adapter_badfd`, `cli_export_cabi_realloc`, which test the
//! adapter for older programs, which is part of the guest.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::Stdio;

use tempfile::TempDir;

use crate::support::{Done, collect, finish, finish_with, guest, image, wait, ww, ww_run};

/// The guest, and a file to read.
fn wasi_image() -> TempDir {
    let dir = image(&[("bin/main.wasm", &guest("wasi"))]);
    std::fs::write(dir.path().join("text"), "And stood awhile in thought").unwrap();
    dir
}

fn run_with(options: &[&str], args: &[&str]) -> Done {
    let image = wasi_image();
    finish(ww_run(image.path(), options).arg("--").args(args))
}

/// The same without `-q`.
fn run_aloud(options: &[&str], args: &[&str]) -> Done {
    let image = wasi_image();
    finish(ww(&["run", "--listen", "none"]).arg(image.path()).args(options).arg("--").args(args))
}

/// The guest says that it holds.
#[track_caller]
fn holds(args: &[&str]) {
    assert_eq!(run_with(&[], args).expect(0).stdout, "ok\n", "{args:?}");
}

/// The guest traps, with this in the message.
#[track_caller]
fn traps(args: &[&str], expected: &str) {
    let done = run_with(&[], args).expect(134);
    assert!(done.stderr.contains(expected), "{args:?}: {}", done.stderr);
}

#[test]
fn a_return_is_a_success() {
    assert_eq!(run_with(&[], &["return"]).expect(0).stdout, "");
    run_with(&[], &["no such thing"]).expect(1);
}

#[test]
fn a_large_environment_arrives() {
    let image = image(&[("bin/main.wasm", &guest("probe"))]);
    let variables: Vec<String> = (0..1000).map(|number| format!("NAME_{number:04}={}", "x".repeat(100))).collect();
    let mut command = ww_run(image.path(), &[]);
    for variable in &variables {
        command.args(["--env", variable]);
    }
    let done = finish(command.args(["--", "env"])).expect(0);
    assert!(done.stdout.lines().eq(variables.iter()), "{}", done.stdout);
}

/// Programs then begin at `/`, which is what their library makes of it.
#[test]
fn the_working_directory_is_not_said() {
    assert_eq!(run_with(&[], &["directory"]).expect(0).stdout, "None\nok\n");
}

#[test]
fn clocks_go_on() {
    holds(&["clocks"]);
    holds(&["sleep"]);
}

#[test]
fn random_bytes_are_as_many_as_asked_for() {
    holds(&["random"]);
}

#[test]
fn all_output_arrives() {
    for (text, count) in [("x", 1), ("a line\n", 5000), (&"y".repeat(100_000), 40)] {
        let done = run_with(&[], &["much-stdout", text, &count.to_string()]).expect(0);
        assert!(done.stdout == text.repeat(count), "{} bytes arrive", done.stdout.len());
    }
}

#[test]
fn a_reader_that_has_gone_is_the_end() {
    let image = wasi_image();
    let mut command = ww_run(image.path(), &["--", "closed-stdout"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(collect(child).expect(0).stderr, "closed\n");
}

#[test]
fn a_prompt_is_there_before_the_input() {
    let image = wasi_image();
    let mut command = ww_run(image.path(), &["--", "prompt"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut prompt = [0; 2];
    stdout.read_exact(&mut prompt).unwrap();
    assert_eq!(&prompt, b"> ");
    drop(child.stdin.take());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "\"\"");
    assert!(wait(&mut child).success());
}

#[test]
fn input_is_read_and_spliced() {
    let image = wasi_image();
    let with = |behaviour: &str, input: &[u8]| {
        finish_with(&mut ww_run(image.path(), &["--", behaviour]), input.to_vec()).expect(0).stdout
    };
    assert_eq!(with("read-nothing", b"abc"), "ok\n");
    assert_eq!(with("splice", b""), "before\n\nafter 0\n");
    let large = "So rested he by the Tumtum tree\n".repeat(10_000);
    assert!(with("splice", large.as_bytes()) == format!("before\n{large}\nafter {}\n", large.len()));
}

#[test]
fn an_error_of_stdin_says_which() {
    let image = wasi_image();
    let mut command = ww_run(image.path(), &["--", "read-error"]);
    let done = finish(command.stdin(std::fs::File::open(image.path()).unwrap())).expect(0);
    assert_eq!(done.stdout, "ok\n");
}

#[test]
fn pollables_can_be_polled_together() {
    holds(&["poll-same"]);
    traps(&["poll-empty"], "empty poll list");
}

#[test]
fn pollables_go_before_their_streams() {
    let done = run_with(&[], &["poll-stream"]).expect(0);
    assert_eq!(done.stdout, format!("{}\nok\n", "a".repeat(500)));
    traps(&["drop-stream-first"], "resource has children");
}

#[test]
fn files_are_read_and_not_changed() {
    for promise in ["seek", "read-only", "across", "permissions"] {
        holds(&[promise, "text"]);
    }
}

#[test]
fn files_are_written() {
    for promise in ["append", "sync", "read-write", "times", "trailing-slashes"] {
        holds(&[promise]);
    }
    assert_eq!(run_with(&["--limit", "tmp=1MiB"], &["full"]).expect(0).stdout, "ok\n");
}

#[test]
fn lengths_have_bounds() {
    holds(&["lengths", "text"]);
    holds(&["lengths", "bin/main.wasm"]);
    traps(&["write-too-much"], "at most 4096");
    traps(&["zeroes-too-many"], "at most 4096");
}

#[test]
fn sockets_connect_as_far_as_the_grant_goes() {
    let grant = ["--grant", "network:127.0.0.0/8"];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let _ = std::io::copy(&mut BufReader::new(&stream), &mut &stream);
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    });
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = socket.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut datagram = [0; 100];
        while let Ok((size, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..size], from);
        }
    });
    for args in [&["tcp", tcp.as_str()][..], &["udp", &udp], &["listen"], &["lookup"]] {
        assert_eq!(run_with(&grant, args).expect(0).stdout, "ok\n", "{args:?}");
        if args[0] != "listen" {
            let refused = run_aloud(&[], args).expect(1).stderr;
            let what = if args[0] == "lookup" { "the look-up of a name once" } else { "a socket once" };
            let expected =
                format!("the guest was refused {what}, since it has no grant `network`; `--grant network` lets");
            assert!(refused.contains(&expected), "{refused}");
            let elsewhere = run_aloud(&["--grant", "network:192.0.2.0/24"], args);
            assert_eq!(elsewhere.code, Some(if args[0] == "lookup" { 0 } else { 1 }), "{}", elsewhere.stderr);
            let expected = "first 127.0.0.1, which its grant `network` does not have; `--grant network:127.0.0.1` lets";
            assert_eq!(elsewhere.stderr.contains(expected), args[0] != "lookup", "{}", elsewhere.stderr);
        }
    }
    holds(&["listen"]);
}

#[test]
fn the_first_line_is_read_by_itself() {
    let image = wasi_image();
    let mut command = ww_run(image.path(), &["--", "prompt"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a line\n").unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "> \"a line\\n\"", "the end of the input is not waited for");
    assert!(wait(&mut child).success());
    drop(stdin);
}
