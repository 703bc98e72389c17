//! The RPC channel in the hands of somebody who does not keep to the protocol.

use std::io::{Read, Write};

use capnp_rpc::rpc_capnp::message;
use futures::io::AsyncWriteExt;
use wasip2::io::streams::{InputStream, OutputStream};
use ww_guest::capnp::message::Builder;
use ww_guest::capnp::serialize;
use ww_guest::capnp::traits::HasTypeId;
use ww_guest::peer_capnp::host;
use ww_guest::{StreamReader, StreamWriter};

use crate::calls::STRANGER;
use crate::{Outcome, Usage};

/// Bytes that are no message, and why.
pub(crate) fn malformed(kind: &str) -> Outcome {
    let bytes = match kind {
        "garbage" => (0..100_000_u32).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect(),
        // 2^32 segments.
        "segments" => vec![0xff; 4096],
        // One segment of two words: a struct pointer to far outside of it.
        "nonsense" => [[0; 4], [2, 0, 0, 0], [0xfc, 0xff, 0xff, 0x7f], [0xff; 4], [0xff; 4], [0xff; 4]].concat(),
        // One segment of 2^32 - 1 words, which do not follow.
        "huge" => [[0; 4], [0xff; 4], [0; 4], [0; 4]].concat(),
        // One segment of 16 words, of which half a word follows.
        "truncated" => [[0; 4], [16, 0, 0, 0], [0; 4]].concat(),
        "chain" => chain(1000),
        _ => return Err(Usage.into()),
    };
    let (input, mut output) = channel()?;
    // The host may end the session before it has taken everything.
    let _ = output.write_all(&bytes).and_then(|()| Write::flush(&mut output));
    if kind == "truncated" {
        drop(output);
    }
    read_to_end(input)
}

/// Has whoever writes to stdin speak with the host, and shows what it says.
pub(crate) fn relay() -> Outcome {
    let (input, output) = channel()?;
    ww_guest::block_on(async move {
        ww_guest::spawn(async move {
            let mut output = StreamWriter::new(output);
            // The host may end the session before it has taken everything.
            let _ = ww_guest::copy(&mut ww_guest::stdin(), &mut output).await;
            let _ = output.close().await;
        });
        ww_guest::copy(&mut StreamReader::new(input), &mut ww_guest::stdout()).await
    })?;
    Ok(String::new())
}

/// Calls, each on the result of the one before, of which the first does not return for seconds: it dials a QUIC address
/// where nobody is.
fn chain(links: u32) -> Vec<u8> {
    let mut bootstrap = Builder::new_default();
    bootstrap.init_root::<message::Builder<'_>>().init_bootstrap().set_question_id(0);
    let mut bytes = serialize::write_message_to_words(&bootstrap);
    for question in 1..=links {
        let mut message = Builder::new_default();
        let mut call = message.init_root::<message::Builder<'_>>().init_call();
        call.set_question_id(question);
        call.set_interface_id(<host::Client as HasTypeId>::TYPE_ID);
        call.set_method_id(CONNECT);
        call.reborrow().init_target().init_promised_answer().set_question_id(question - 1);
        let mut params = call.init_params().init_content().init_as::<host::connect_params::Builder<'_>>();
        params.set_id(STRANGER);
        params.init_addrs(1).set(0, "/ip4/127.0.0.1/udp/9/quic-v1");
        bytes.extend(serialize::write_message_to_words(&message));
    }
    bytes
}

/// The number of `Host.connect` in the schema.
const CONNECT: u16 = 3;

pub(crate) fn close() -> Outcome {
    let (input, output) = channel()?;
    drop(output);
    read_to_end(input)
}

/// Calls `Host.id` of the export with this number, of which there is none besides that of the bootstrap capability, 0.
pub(crate) fn guess_ids(number: u32) -> Outcome {
    let mut bootstrap = Builder::new_default();
    bootstrap.init_root::<message::Builder<'_>>().init_bootstrap().set_question_id(0);
    let mut message = Builder::new_default();
    let mut call = message.init_root::<message::Builder<'_>>().init_call();
    call.set_question_id(1);
    call.set_interface_id(<host::Client as HasTypeId>::TYPE_ID);
    call.reborrow().init_target().set_imported_cap(number);
    let (input, mut output) = channel()?;
    for message in [&bootstrap, &message] {
        let _ = output.write_all(&serialize::write_message_to_words(message));
    }
    let _ = Write::flush(&mut output);
    read_to_end(input)
}

/// Asks for the bootstrap capability again and again. Waits for ever when the host takes no more.
pub(crate) fn flood() -> Outcome {
    let (input, mut output) = channel()?;
    for question in 0_u32.. {
        let mut bootstrap = Builder::new_default();
        bootstrap.init_root::<message::Builder<'_>>().init_bootstrap().set_question_id(question);
        if output.write_all(&serialize::write_message_to_words(&bootstrap)).is_err() {
            break;
        }
    }
    read_to_end(input)
}

fn channel() -> Result<(InputStream, OutputStream), &'static str> {
    ww_guest::take_channel().ok_or("the host offers no RPC channel")
}

fn read_to_end(mut input: InputStream) -> Outcome {
    let mut answer = Vec::new();
    input.read_to_end(&mut answer)?;
    Ok(format!("the host ended the session after {} bytes", answer.len()))
}
