//! Writes its stdin to its stdout, and what the host echoes to its stderr.
//!
//! Both at once: stdout is exactly stdin, of any size, whether or not the host answers and somebody reads stderr.
//! With `--exit N` it ends with the code `N` before it reads anything.

use std::error::Error;

use futures::io::AsyncWriteExt;
use ww_guest::ExitCode;
use ww_guest::peer_capnp::host;

/// What is sent to the host.
const MESSAGE: &str = "hello from child-echo";

/// The exit code for arguments that make no sense.
const USAGE: ExitCode = ExitCode(2);

fn main() {
    ww_guest::run(child_echo)
}

async fn child_echo(host: host::Client) -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match parse(&args) {
        Ok(None) => {
            let (copied, echoed) = futures::join!(copy_stdin(), echo(&host));
            copied?;
            echoed?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Some(code)) => Ok(code),
        Err(problem) => {
            ww_guest::stderr().write_all(format!("child-echo: {problem}\n").as_bytes()).await?;
            Ok(USAGE)
        }
    }
}

/// The code of `--exit N`, if it is there.
fn parse(args: &[String]) -> Result<Option<ExitCode>, String> {
    match args {
        [] => Ok(None),
        [option, code] if option == "--exit" => {
            let code = code.parse().map_err(|_| format!("--exit wants a number from 0 to 255, not {code:?}"))?;
            Ok(Some(ExitCode(code)))
        }
        _ => Err(format!("usage: child-echo [--exit N], not {args:?}")),
    }
}

async fn copy_stdin() -> Result<(), Box<dyn Error>> {
    ww_guest::copy(&mut ww_guest::stdin(), &mut ww_guest::stdout()).await?;
    Ok(())
}

/// Has the host echo [`MESSAGE`], and writes the answer to stderr.
async fn echo(host: &host::Client) -> Result<(), Box<dyn Error>> {
    let executor = host.executor_request().send().pipeline.get_executor();
    let mut request = executor.echo_request();
    request.get().set_message(MESSAGE);
    let response = request.send().promise.await?;
    let answer = format!("{}\n", response.get()?.get_response()?.to_str()?);
    ww_guest::stderr().write_all(answer.as_bytes()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str], expected: Result<Option<u8>, &str>) {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        match (parse(&args), expected) {
            (Ok(code), Ok(expected)) => assert_eq!(code, expected.map(ExitCode)),
            (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{problem}"),
            (parsed, expected) => panic!("{parsed:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn parses_arguments() {
        check(&[], Ok(None));
        check(&["--exit", "0"], Ok(Some(0)));
        check(&["--exit", "255"], Ok(Some(255)));
        check(&["--exit", "256"], Err("0 to 255"));
        check(&["--exit", "-1"], Err("0 to 255"));
        check(&["--exit"], Err("usage"));
        check(&["x"], Err("usage"));
    }
}
