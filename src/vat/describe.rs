//! One line about an RPC message, for the log.

use capnp_rpc::rpc_capnp::{message, message_target, resolve, return_};

/// Describes a message of `rpc.capnp` without its payload: its kind, and the numbers that tie it to others.
pub(super) fn describe(body: capnp::Result<capnp::any_pointer::Reader<'_>>) -> String {
    body.and_then(|body| try_describe(body.get_as()?))
        .unwrap_or_else(|error| format!("a malformed message: {}", shown(&error)))
}

/// An error as it is shown: its text may be the peer's.
pub(super) fn shown(error: &capnp::Error) -> String {
    crate::escape::short(&error.to_string())
}

fn try_describe(message: message::Reader<'_>) -> capnp::Result<String> {
    Ok(match message.which()? {
        message::Unimplemented(_) => "unimplemented".into(),
        message::Abort(abort) => format!("abort: {}", crate::escape::short(abort?.get_reason()?.to_str()?)),
        message::Bootstrap(bootstrap) => format!("bootstrap: question {}", bootstrap?.get_question_id()),
        message::Call(call) => {
            let call = call?;
            format!(
                "call: question {}, interface {:#018x}, method {}, on {}",
                call.get_question_id(),
                call.get_interface_id(),
                call.get_method_id(),
                target(call.get_target()?)?
            )
        }
        message::Return(returned) => {
            let returned = returned?;
            format!("return: answer {}, {}", returned.get_answer_id(), outcome(returned)?)
        }
        message::Finish(finish) => format!("finish: question {}", finish?.get_question_id()),
        message::Resolve(resolved) => {
            let resolved = resolved?;
            let outcome = match resolved.which()? {
                resolve::Cap(_) => "a capability",
                resolve::Exception(_) => "an exception",
            };
            format!("resolve: promise {} to {outcome}", resolved.get_promise_id())
        }
        message::Release(release) => {
            let release = release?;
            format!("release: {} of {}", release.get_reference_count(), release.get_id())
        }
        message::Disembargo(_) => "disembargo".into(),
        message::ObsoleteSave(_) | message::ObsoleteDelete(_) => "an obsolete message".into(),
        message::Provide(_) => "provide".into(),
        message::Accept(_) => "accept".into(),
        message::Join(_) => "join".into(),
    })
}

fn target(target: message_target::Reader<'_>) -> capnp::Result<String> {
    Ok(match target.which()? {
        message_target::ImportedCap(id) => format!("capability {id}"),
        message_target::PromisedAnswer(answer) => format!("the answer to question {}", answer?.get_question_id()),
    })
}

fn outcome(returned: return_::Reader<'_>) -> capnp::Result<String> {
    Ok(match returned.which()? {
        return_::Results(_) => "results".into(),
        return_::Exception(exception) => {
            format!("exception: {}", crate::escape::short(exception?.get_reason()?.to_str()?))
        }
        return_::Canceled(()) => "canceled".into(),
        return_::ResultsSentElsewhere(()) => "results sent elsewhere".into(),
        return_::TakeFromOtherQuestion(id) => format!("the results of question {id}"),
        return_::AcceptFromThirdParty(_) => "results from a third party".into(),
    })
}
