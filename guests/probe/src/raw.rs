//! The RPC channel in the hands of somebody who does not keep to the protocol.

use std::io::{Read, Write};

use capnp_rpc::rpc_capnp::message;
use futures::io::AsyncWriteExt;
use wasip2::io::streams::{InputStream, OutputStream};
use ww_guest::capnp::message::Builder;
use ww_guest::capnp::private::capability::ClientHook;
use ww_guest::capnp::serialize;
use ww_guest::capnp::traits::{HasTypeId, ImbueMut};
use ww_guest::peer_capnp::host;
use ww_guest::{StreamReader, StreamWriter};

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

/// Calls, each on the result of the one before, of which the first never returns: it is one of a capability that this guest
/// has had the host put a membrane around, and does not serve.
fn chain(links: u32) -> Vec<u8> {
    let mut bootstrap = Builder::new_default();
    bootstrap.init_root::<message::Builder<'_>>().init_bootstrap().set_question_id(0);
    let mut bytes = serialize::write_message_to_words(&bootstrap);
    for question in 1..=links {
        let mut message = Builder::new_default();
        let mut call = message.init_root::<message::Builder<'_>>().init_call();
        call.set_question_id(question);
        call.set_interface_id(<host::Client as HasTypeId>::TYPE_ID);
        let mut target = call.reborrow().init_target().init_promised_answer();
        target.set_question_id(question - 1);
        if question > 1 {
            target.init_transform(1).get(0).set_get_pointer_field(0);
        } else {
            call.set_method_id(REVOCABLE);
            let mut params = call.init_params();
            params.reborrow().init_cap_table(1).get(0).set_sender_hosted(0);
            let mut table = Vec::new();
            let mut content = params.get_content();
            let mut place = content.reborrow();
            place.imbue_mut(&mut table);
            let revocable = place.init_as::<host::revocable_params::Builder<'_>>();
            // Names the first capability of the message, whichever that is.
            revocable.init_capability().set_as_capability(unserved());
        }
        bytes.extend(serialize::write_message_to_words(&message));
    }
    bytes
}

fn unserved() -> Box<dyn ClientHook> {
    capnp_rpc::new_broken_cap(ww_guest::capnp::Error::failed(String::new())).hook
}

/// The number of `Host.revocable` in the schema.
const REVOCABLE: u16 = 6;

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
