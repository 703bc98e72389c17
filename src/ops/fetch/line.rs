//! The connection to those who have content: what they are asked for, and what they answer.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::keep::{Keeper, Want};
use super::schedule::{JobId, Message, QUEUE, Schedule, TICK};
use super::{DagRequest, FetchError, FetchEvent, Fetched, Source, blocking};
use crate::dag::Block;

/// A schedule with the answers to its requests. It can be used again and again, and remembers who is of no use.
pub(super) struct Line {
    pub(super) schedule: Schedule,
    receiver: mpsc::Receiver<(JobId, Message)>,
}

impl Line {
    pub(super) fn new(sources: Vec<Arc<dyn Source>>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self { schedule: Schedule::new(sources, sender), receiver }
    }

    /// The answers that have come; waits for one. Cancel safe.
    pub(super) async fn answers(&mut self) -> Vec<(JobId, Message)> {
        let mut answers = Vec::new();
        self.receiver.recv_many(&mut answers, QUEUE).await;
        answers
    }

    /// Brings all that is needed of a part of a DAG, of which `wants` is needed first.
    pub(super) async fn bring(
        &mut self,
        keeper: Keeper,
        wants: Vec<Want>,
        request: DagRequest,
        events: &(dyn Fn(FetchEvent<'_>) + Sync),
    ) -> Result<Fetched, FetchError> {
        let brought = self.try_bring(keeper, wants, request, events).await;
        self.schedule.clear();
        brought
    }

    async fn try_bring(
        &mut self,
        mut keeper: Keeper,
        wants: Vec<Want>,
        request: DagRequest,
        events: &(dyn Fn(FetchEvent<'_>) + Sync),
    ) -> Result<Fetched, FetchError> {
        let names = self.schedule.names();
        if !wants.is_empty() && !names.is_empty() {
            events(FetchEvent::Asking { sources: &names });
        }
        self.schedule.want(wants);
        let mut ticks = ticks();
        while self.schedule.dispatch() {
            let mut messages = Vec::new();
            tokio::select! {
                answers = self.answers() => messages = answers,
                _ = ticks.tick() => self.schedule.look_after(),
            }
            let mut messages = messages.into_iter().peekable();
            while messages.peek().is_some() {
                let blocks = leading_blocks(&mut messages);
                if !blocks.is_empty() {
                    keeper = self.store_blocks(keeper, blocks).await?;
                    events(FetchEvent::Progress { blocks: keeper.blocks, bytes: keeper.bytes });
                }
                if let Some((job, Message::Ended(error))) = messages.next()
                    && let Some(bad) = self.schedule.ended(job, error)
                {
                    events(FetchEvent::BadSource { source: &bad.source, error: &bad.error });
                }
            }
        }
        let keeper = blocking(move || keeper.commit().map(|()| keeper)).await??;
        if let Some(missing) = self.schedule.missing_of(request) {
            return Err(FetchError::Missing(Box::new(missing)));
        }
        let (blocks, bytes) = (keeper.blocks, keeper.bytes);
        let (end, hold) = keeper.into_end();
        let end = end.expect("nothing is wanted any more, so the path was followed to its end");
        Ok(Fetched { end, blocks, bytes, hold })
    }

    /// Stores blocks as far as they are needed, and notes for what.
    async fn store_blocks(&mut self, mut keeper: Keeper, blocks: Vec<(JobId, Block)>) -> Result<Keeper, FetchError> {
        // The bytes that a block takes on its way: there may be many that are empty.
        let sizes: Vec<_> = blocks.iter().map(|(job, block)| (*job, sent_bytes(block))).collect();
        let stored = blocking(move || match keeper.advance(&blocks) {
            Ok(advance) => Ok((keeper, advance)),
            // What came says where the path does not lead, and is not to be fetched again for that.
            Err(error @ FetchError::Path(_)) => keeper.commit().map_err(FetchError::from).and(Err(error)),
            Err(error) => Err(error),
        });
        let (keeper, advance) = stored.await??;
        for ((job, bytes), taken) in sizes.into_iter().zip(advance.taken) {
            self.schedule.delivered(job, bytes, taken);
        }
        self.schedule.want(advance.wants);
        Ok(keeper)
    }
}

/// When to look after requests.
pub(super) fn ticks() -> Interval {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

pub(super) fn sent_bytes(block: &Block) -> u64 {
    (block.cid().encoded_len() + block.data().len()) as u64
}

/// The blocks at the front of messages, up to the next end of a request, and the requests that brought them.
pub(super) fn leading_blocks(
    messages: &mut std::iter::Peekable<impl Iterator<Item = (JobId, Message)>>,
) -> Vec<(JobId, Block)> {
    let mut blocks = Vec::new();
    while let Some((id, message)) = messages.next_if(|(_, message)| matches!(message, Message::Block(_))) {
        if let Message::Block(block) = message {
            blocks.push((id, block));
        }
    }
    blocks
}
