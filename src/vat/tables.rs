//! What one peer has in flight: its questions, and the capabilities that each side holds of the other.
//!
//! capnp-rpc has the same tables and bounds none of them. These are kept by the messages that pass, entry for entry, so
//! that they tell at any time how much it holds for the peer, and how deep it would have to go into it: what waits for
//! something else is polled, and dropped, by recursion.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use capnp::{Error, struct_list};
use capnp_rpc::rpc_capnp::{
    call, cap_descriptor, disembargo, message, message_target, payload, promised_answer, resolve, return_,
};

use super::refusal::Refusal;
use super::{Limits, Overrun};
use crate::grant::Limit;

/// How many calls may wait for each other: be chained, each on the result of the one before, while the first is
/// unanswered. Far more than interfaces have levels, and a thousandth of what the stack of a thread takes that serves RPC.
pub(super) const CHAIN_MAX: usize = 64;

/// How many capabilities one message may have. Those of programs have a handful.
pub(super) const CAPABILITIES_MAX: u32 = 1024;

/// How many steps there may be from an answer to a capability in it: as deep as a message may nest.
const TRANSFORM_MAX: u32 = 64;

/// How many calls a connection may have cancelled. capnp-rpc forgets none that did not return before.
const CANCELLED_MAX: usize = 64 * 1024;

/// What an unanswered call, a capability that one side holds of the other, or a reference to an answer that is not there
/// yet costs in bytes besides what is in messages; somewhat more than what the RPC system and whoever serves it keep of it.
const ENTRY_BYTES: usize = 1024;

/// What is left of a question of the host that it has given up, in bytes. The peer pays for it, who can end it by answering;
/// others, who give it rise, are not to use up much of what it has.
const ABANDONED_BYTES: usize = 128;

/// What the RPC system makes of each capability in a message that is there, in bytes.
const CAPABILITY_BYTES: usize = 128;

/// What is to happen with a message of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// The RPC system handles it.
    Passes,
    /// It says nothing that the RPC system is to know.
    Ends,
    /// The RPC system is to give back what it names, as if this promise were resolved, which there is not.
    GivenBack { no_promise: u32 },
    /// The RPC system is to take this question for finished, and to release nothing for that.
    Finishes { question: u32 },
}

/// A message of the peer that is taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) passage: Passage,
    /// What is made of the message besides itself, in bytes.
    pub(super) size: usize,
}

/// See the module.
pub(super) struct Tables {
    limits: Limits,
    /// The questions of the peer that have not been answered, or are not finished.
    questions: HashMap<u32, Question>,
    /// How many of them are not finished.
    asked: usize,
    /// How many of those that are neither have which length of chain.
    chains: BTreeMap<usize, usize>,
    /// What the host holds of the peer.
    imports: HashMap<u32, Import>,
    /// What the peer holds of the host.
    exports: HashMap<u32, Export>,
    /// How many of these it has itself given rise to.
    own_exports: usize,
    /// The host's own questions that it has finished before there was an answer.
    abandoned: HashSet<u32>,
    /// How often answers were named that are not there yet. capnp-rpc keeps something for each until they are, whatever
    /// becomes of who named it.
    named: usize,
    /// Where a number is looked for that is not in `imports`.
    unused: u32,
}

#[derive(Default)]
struct Question {
    /// How many questions it waits for.
    chain: usize,
    /// Whether it is one of those in `chains`.
    is_waiting: bool,
    /// Whether its answer was handed to somebody before it was there: then it is waited for even when it is finished.
    is_handed: bool,
    is_returned: bool,
    is_finished: bool,
    /// Whether something else was sent instead of its answer.
    is_refused: bool,
    /// How often it was named before its answer was there.
    named: usize,
    /// What is in its answer.
    exports: Vec<u32>,
}

struct Import {
    references: u32,
    is_promise: bool,
}

struct Export {
    references: u32,
    /// Whether the peer has given rise to it, and not somebody who calls it. Others may not use up what it may hold, and are
    /// bounded by what the host holds of them.
    is_own: bool,
    /// Where it is a promise, how many calls there may be that wait for each other before it is resolved.
    promise: Option<usize>,
}

impl Tables {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            questions: HashMap::new(),
            asked: 0,
            chains: BTreeMap::new(),
            imports: HashMap::new(),
            exports: HashMap::new(),
            own_exports: 0,
            abandoned: HashSet::new(),
            named: 0,
            unused: u32::MAX,
        }
    }

    /// What the entries cost, in bytes.
    pub(super) fn cost(&self) -> usize {
        (self.questions.len() + self.imports.len() + self.exports.len() + self.named) * ENTRY_BYTES
            + self.abandoned.len() * ABANDONED_BYTES
    }

    /// How many of the peer's calls may wait for each other.
    pub(super) fn chain_max(&self) -> usize {
        self.chains.last_key_value().map_or(0, |(chain, _)| *chain)
    }

    /// Notes a message of the peer.
    ///
    /// # Errors
    ///
    /// It is malformed, or asks for too much.
    pub(super) fn received(&mut self, message: message::Reader<'_>) -> Result<Taken, Refusal> {
        let mut size = 0;
        match message.which()? {
            message::Bootstrap(bootstrap) => self.ask(bootstrap?.get_question_id(), 0)?,
            message::Call(call) => size = self.received_call(call?)?,
            message::Return(returned) => size = self.received_return(returned?)?,
            message::Finish(finish) => {
                let finish = finish?;
                let question = finish.get_question_id();
                if self.finish(question, finish.get_release_result_caps())? {
                    return Ok(Taken { passage: Passage::Finishes { question }, size });
                }
            }
            message::Release(release) => {
                let release = release?;
                self.release_export(release.get_id(), release.get_reference_count());
            }
            message::Resolve(resolve) => {
                return Ok(Taken { passage: self.received_resolve(resolve?)?, size });
            }
            message::Disembargo(disembargo) => self.check_disembargo(disembargo?)?,
            message::Unimplemented(message) => {
                if let message::Resolve(resolve) = message?.which()?
                    && let resolve::Cap(descriptor) = resolve?.which()?
                    && let cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id) = descriptor?.which()?
                {
                    self.release_export(id, 1);
                }
            }
            // What is unknown is the RPC system's affair.
            _ => {}
        }
        Ok(Taken { passage: Passage::Passes, size })
    }

    /// Returns what is made of the message besides itself, in bytes.
    fn received_call(&mut self, call: call::Reader<'_>) -> Result<usize, Refusal> {
        // The results would stay here, and nobody here asks for them.
        if !matches!(call.get_send_results_to().which()?, call::send_results_to::Caller(())) {
            return Err(Error::unimplemented("results are sent to the caller, and nowhere else".into()).into());
        }
        let (target, chain) = match call.get_target()?.which()? {
            message_target::ImportedCap(id) => (Some(id), self.chain_behind(id)),
            message_target::PromisedAnswer(answer) => (None, self.chain_after(answer?, false)?),
        };
        let promise = target.filter(|id| self.exports.get(id).is_some_and(|export| export.promise.is_some()));
        let (chain_of_capabilities, size) = self.take_capabilities(call.get_params()?, promise)?;
        self.ask(call.get_question_id(), chain.max(chain_of_capabilities))?;
        Ok(size)
    }

    /// Returns what is made of the message besides itself, in bytes.
    fn received_return(&mut self, returned: return_::Reader<'_>) -> Result<usize, Refusal> {
        let is_awaited = !self.abandoned.remove(&returned.get_answer_id());
        match returned.which()? {
            // What is in an answer that was not waited for is not taken.
            return_::Results(results) if is_awaited => Ok(self.take_capabilities(results?, None)?.1),
            // No results stay here that could be taken; and capnp-rpc never forgets a question that it has given up and
            // that is answered like this.
            return_::TakeFromOtherQuestion(_) => {
                Err(Error::unimplemented("an answer is in its message, and not in that to another question".into())
                    .into())
            }
            _ => Ok(0),
        }
    }

    /// Takes what comes in a message. Returns how many calls wait for each other before all of it is resolved, and what is
    /// made of it, in bytes.
    ///
    /// capnp-rpc panics when calls wait in a promise, `target`, for this promise itself.
    fn take_capabilities(
        &mut self,
        payload: payload::Reader<'_>,
        target: Option<u32>,
    ) -> Result<(usize, usize), Refusal> {
        let table: struct_list::Reader<'_, cap_descriptor::Owned> = payload.get_cap_table()?;
        if table.is_empty() {
            return Ok((0, 0));
        }
        // The library makes an object for each entry, and for each place in the message that names one.
        if table.len() > CAPABILITIES_MAX || payload.get_content().target_size()?.cap_count > CAPABILITIES_MAX {
            return Err(Error::failed(format!("a message has more than {CAPABILITIES_MAX} capabilities")).into());
        }
        let size = table.len() as usize * CAPABILITY_BYTES;
        let mut chain = 0;
        for descriptor in table {
            match descriptor.which()? {
                cap_descriptor::SenderHosted(id) => self.import(id, false)?,
                cap_descriptor::SenderPromise(id) => self.import(id, true)?,
                cap_descriptor::ReceiverHosted(id) if target == Some(id) => {
                    return Err(Error::failed("a promise is handed to itself".into()).into());
                }
                cap_descriptor::ReceiverHosted(id) => chain = chain.max(self.chain_behind(id)),
                cap_descriptor::ReceiverAnswer(answer) => chain = chain.max(self.chain_after(answer?, true)?),
                cap_descriptor::None(()) | cap_descriptor::ThirdPartyHosted(_) => {}
            }
        }
        Ok((chain, size))
    }

    /// A promise of the peer may become something else that the peer serves, once. All else is not told to the RPC system,
    /// for which the peer stays the one who passes calls on, as it must do anyway until it learns that this is not needed:
    /// promises that become promises are a chain; and capnp-rpc panics in calls that are on their way to the peer when it
    /// turns out that the promise is an error, or something that is not the peer's.
    fn received_resolve(&mut self, resolve: resolve::Reader<'_>) -> Result<Passage, Refusal> {
        let resolve::Cap(descriptor) = resolve.which()? else { return Ok(Passage::Ends) };
        let (id, is_promise) = match descriptor?.which()? {
            cap_descriptor::SenderHosted(id) => (id, false),
            cap_descriptor::SenderPromise(id) => (id, true),
            _ => return Ok(Passage::Ends),
        };
        let is_settled = !is_promise && !self.imports.get(&id).is_some_and(|import| import.is_promise);
        self.import(id, is_promise)?;
        if is_settled {
            return Ok(Passage::Passes);
        }
        // There are far fewer than there are numbers. Not from the start: who takes them one by one is not to make this long.
        while self.imports.contains_key(&self.unused) {
            self.unused = self.unused.wrapping_sub(1);
        }
        Ok(Passage::GivenBack { no_promise: self.unused })
    }

    fn check_disembargo(&mut self, disembargo: disembargo::Reader<'_>) -> Result<(), Refusal> {
        if let message_target::PromisedAnswer(answer) = disembargo.get_target()?.which()? {
            self.chain_after(answer?, false)?;
        }
        Ok(())
    }

    /// Notes a message to the peer, to which it has given rise itself, if it is its own. What it promises is resolved when
    /// calls have returned of which `chain` wait for each other.
    ///
    /// # Errors
    ///
    /// The peer holds too much.
    pub(super) fn sent(&mut self, message: message::Reader<'_>, chain: usize, is_own: bool) -> Result<(), Refusal> {
        match message.which()? {
            message::Call(call) => self.export_all(call?.get_params()?, chain, is_own).map(drop),
            message::Return(returned) => {
                let returned = returned?;
                let exports = match returned.which()? {
                    return_::Results(results) => self.export_all(results?, chain, is_own)?,
                    _ => Vec::new(),
                };
                self.answered(returned.get_answer_id(), returned.get_no_finish_needed(), exports);
                Ok(())
            }
            message::Finish(finish) => {
                let finish = finish?;
                if finish.get_release_result_caps() {
                    self.abandoned.insert(finish.get_question_id());
                }
                Ok(())
            }
            message::Release(release) => {
                let release = release?;
                if let Some(import) = self.imports.get_mut(&release.get_id()) {
                    import.references = import.references.saturating_sub(release.get_reference_count());
                    if import.references == 0 {
                        self.imports.remove(&release.get_id());
                    }
                }
                Ok(())
            }
            message::Resolve(resolve) => {
                let resolve = resolve?;
                if let Some(export) = self.exports.get_mut(&resolve.get_promise_id()) {
                    export.promise = None;
                }
                match resolve.which()? {
                    resolve::Cap(descriptor) => self.export(descriptor?, chain, is_own).map(drop),
                    resolve::Exception(_) => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Notes that a question of the host was answered here, and not by the peer.
    pub(super) fn answered_here(&mut self, question: u32) {
        self.abandoned.remove(&question);
    }

    /// Notes that something else is sent instead of the answer to a question, and that what was in it is given back.
    pub(super) fn refused(&mut self, question: u32) {
        if let Some(question) = self.questions.get_mut(&question) {
            question.is_refused = true;
        }
    }

    fn ask(&mut self, id: u32, chain: usize) -> Result<(), Refusal> {
        if chain > CHAIN_MAX {
            return Err(Error::failed(format!("more than {CHAIN_MAX} calls are chained to an unanswered one")).into());
        }
        let calls = self.limits.calls;
        if self.asked >= calls {
            let reason = format!("more than {calls} calls are unanswered, the limit `calls`");
            return Err(Overrun { limit: Limit::Calls, reason }.into());
        }
        let Entry::Vacant(entry) = self.questions.entry(id) else {
            return Err(Error::failed(format!("the number {id} of a question is in use")).into());
        };
        entry.insert(Question { chain, is_waiting: true, ..Question::default() });
        self.asked += 1;
        *self.chains.entry(chain).or_default() += 1;
        Ok(())
    }

    /// How many calls wait for each other where one is made on the answer to a question, or where the answer is handed on.
    fn chain_after(&mut self, answer: promised_answer::Reader<'_>, is_handed: bool) -> Result<usize, Refusal> {
        if answer.get_transform()?.len() > TRANSFORM_MAX {
            return Err(Error::failed(format!("an answer is looked into more than {TRANSFORM_MAX} levels deep")).into());
        }
        match self.questions.get_mut(&answer.get_question_id()) {
            Some(question) if !question.is_returned => {
                question.is_handed |= is_handed;
                question.named += 1;
                self.named += 1;
                return Ok(question.chain + 1);
            }
            _ => {}
        }
        let question = self.questions.get(&answer.get_question_id());
        let exports = question.map_or(&[][..], |question| &question.exports);
        Ok(exports.iter().map(|id| self.chain_behind(*id)).max().unwrap_or(0))
    }

    /// The same for one that is made on what the peer holds.
    fn chain_behind(&self, export: u32) -> usize {
        self.exports.get(&export).and_then(|export| export.promise).map_or(0, |chain| chain + 1)
    }

    fn answered(&mut self, id: u32, no_finish_needed: bool, exports: Vec<u32>) {
        let Some(question) = self.questions.get_mut(&id) else { return };
        let (chain, was_waiting) = (question.chain, std::mem::take(&mut question.is_waiting));
        question.is_returned = true;
        question.exports = exports;
        self.named -= std::mem::take(&mut question.named);
        let was_asked = !question.is_finished;
        if question.is_finished || no_finish_needed {
            self.questions.remove(&id);
            if was_asked {
                self.asked -= 1;
            }
        }
        if was_waiting {
            self.forget_chain(chain);
        }
    }

    /// Notes that the peer has finished a question. Returns whether it was one whose answer was not sent.
    fn finish(&mut self, id: u32, with_exports: bool) -> Result<bool, Refusal> {
        let Some(question) = self.questions.get_mut(&id) else { return Ok(false) };
        let (chain, is_returned, is_refused) = (question.chain, question.is_returned, question.is_refused);
        let was_asked = !std::mem::replace(&mut question.is_finished, true);
        let exports = std::mem::take(&mut question.exports);
        if is_returned {
            self.questions.remove(&id);
        } else if !question.is_handed {
            // Nobody is left who waits for it.
            self.named -= std::mem::take(&mut question.named);
            if std::mem::take(&mut question.is_waiting) {
                self.forget_chain(chain);
            }
        }
        if was_asked {
            self.asked -= 1;
        }
        if with_exports {
            exports.into_iter().for_each(|id| self.release_export(id, 1));
        }
        if self.questions.len() - self.asked > CANCELLED_MAX {
            return Err(Error::overloaded(format!("more than {CANCELLED_MAX} calls were cancelled")).into());
        }
        Ok(is_refused)
    }

    fn forget_chain(&mut self, chain: usize) {
        if let Some(count) = self.chains.get_mut(&chain) {
            *count -= 1;
            if *count == 0 {
                self.chains.remove(&chain);
            }
        }
    }

    fn import(&mut self, id: u32, is_promise: bool) -> Result<(), Refusal> {
        let import = self.imports.entry(id).or_insert(Import { references: 0, is_promise });
        import.references = import.references.saturating_add(1);
        self.check_held(self.imports.len())
    }

    fn export_all(&mut self, payload: payload::Reader<'_>, chain: usize, is_own: bool) -> Result<Vec<u32>, Refusal> {
        let mut exports = Vec::new();
        for descriptor in payload.get_cap_table()? {
            exports.extend(self.export(descriptor, chain, is_own)?);
        }
        Ok(exports)
    }

    fn export(
        &mut self,
        descriptor: cap_descriptor::Reader<'_>,
        chain: usize,
        is_own: bool,
    ) -> Result<Option<u32>, Refusal> {
        let (id, promise) = match descriptor.which()? {
            cap_descriptor::SenderHosted(id) => (id, None),
            cap_descriptor::SenderPromise(id) => (id, Some(chain)),
            _ => return Ok(None),
        };
        let export = self.exports.entry(id).or_insert(Export { references: 0, is_own, promise });
        self.own_exports += usize::from(export.references == 0 && is_own);
        export.references = export.references.saturating_add(1);
        self.check_held(self.own_exports)?;
        Ok(Some(id))
    }

    fn release_export(&mut self, id: u32, count: u32) {
        if let Some(export) = self.exports.get_mut(&id) {
            export.references = export.references.saturating_sub(count);
            if export.references == 0 {
                self.own_exports -= usize::from(export.is_own);
                self.exports.remove(&id);
            }
        }
    }

    fn check_held(&self, count: usize) -> Result<(), Refusal> {
        let handles = self.limits.handles;
        if count <= handles {
            return Ok(());
        }
        let reason = format!("more than {handles} capabilities are held at once, the limit `handles`");
        Err(Overrun { limit: Limit::Handles, reason }.into())
    }
}
