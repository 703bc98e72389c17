//! Blocks that are read through a session, from sources that behave as they are told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::timeout;

use super::super::tests::{Fake, PATIENCE, Step, directory_of, raw};
use super::super::{DagRequest, FetchError, FetchEvent, FetchLimits, Payer, Source};
use super::{Session, SessionOptions};
use crate::blockstore::{Blockstore, DiskBlockstore, GcOptions, MemoryBlockstore, Options};
use crate::cell::Account;
use crate::dag::{Block, Cid, Scope};
use crate::grant::Limits;
use crate::remote::Cause;

/// A session with what it did.
struct Fixture {
    session: Session,
    store: MemoryBlockstore,
    events: Arc<Mutex<Vec<String>>>,
    /// How often somebody asked for sources.
    looked: Arc<AtomicUsize>,
    payer: Arc<Payer>,
}

impl Fixture {
    fn new(sources: &[&Arc<Fake>]) -> Self {
        Self::with(sources, FetchLimits::default(), PATIENCE, &[])
    }

    fn with(sources: &[&Arc<Fake>], limits: FetchLimits, patience: Duration, account: &[&str]) -> Self {
        let sources: Vec<_> = sources.iter().map(|source| (*source).clone() as Arc<dyn Source>).collect();
        let (store, looked) = (MemoryBlockstore::default(), Arc::new(AtomicUsize::new(0)));
        let events = Arc::new(Mutex::new(Vec::new()));
        let (opened, counted, told) = (store.clone(), looked.clone(), events.clone());
        let options = SessionOptions {
            store: Box::new(move || Ok(Arc::new(opened.clone()))),
            sources: Box::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(sources.clone())
            }),
            limits,
            events: Arc::new(move |event| told.lock().unwrap().push(shown(&event))),
            patience,
        };
        let mut limits = Limits::default();
        limits.extend(account.iter().map(|text| text.parse::<Limits>().unwrap()));
        let payer = Arc::new(Payer::of(Account::new(limits)));
        let session = Session::new(options, tokio::runtime::Handle::current());
        Self { session, store, events, looked, payer }
    }

    async fn read(&self, block: &Block) -> Result<Block, Arc<FetchError>> {
        timeout(PATIENCE, self.session.block(*block.cid(), Vec::new(), &self.payer)).await.unwrap()
    }

    fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }

    fn has(&self, block: &Block) -> bool {
        self.store.has(block.cid()).unwrap()
    }
}

fn shown(event: &FetchEvent<'_>) -> String {
    match event {
        FetchEvent::Asking { sources } => format!("asking {}", sources.join(" ")),
        FetchEvent::BadSource { source, .. } => format!("bad {source}"),
        FetchEvent::Lost { .. } => "lost".into(),
        FetchEvent::LimitReached(reached) => reached.to_string(),
        other => format!("{other:?}"),
    }
}

fn blocks<const COUNT: usize>() -> [Block; COUNT] {
    std::array::from_fn(|number| raw(vec![number as u8; 1000]))
}

/// Gives each block after a while, so that others can come to want it as well.
fn late(blocks: &[Block]) -> Arc<Fake> {
    let wait = Duration::from_millis(50);
    let steps: HashMap<Cid, Step> =
        blocks.iter().map(|block| (*block.cid(), Step::GiveLate(wait, block.clone()))).collect();
    Arc::new(Fake::new("late", &[]).on_block(steps))
}

#[tokio::test]
async fn nobody_is_looked_for_where_nothing_is_missing() {
    let [block] = blocks();
    let fixture = Fixture::new(&[]);
    let mut writer = fixture.store.writer().unwrap();
    writer.put(&block).unwrap();
    writer.commit(&[]).unwrap();
    assert_eq!(fixture.read(&block).await.unwrap(), block);
    fixture.session.expect(vec![*raw(b"other".to_vec()).cid()], &fixture.payer);
    fixture.session.close().await;
    assert_eq!(fixture.looked.load(Ordering::Relaxed), 0);
    assert!(fixture.events().is_empty());
}

#[tokio::test]
async fn what_is_whole_is_leased_at_once() {
    let [leaf, missing] = blocks();
    let dag = directory_of(&[leaf.clone(), missing]);
    let root = dag.0.last().unwrap().clone();
    let fixture = Fixture::new(&[]);
    let mut writer = fixture.store.writer().unwrap();
    for block in [&leaf, &root] {
        writer.put(block).unwrap();
    }
    writer.commit(&[]).unwrap();
    let lease = |path: &str| {
        let request = DagRequest { root: *root.cid(), path: path.to_owned(), scope: Scope::Entity };
        fixture.session.lease_at_once(request)
    };
    assert!(lease("000001").is_none());
    assert!(lease("nowhere").is_none());
    let held = lease("000000").unwrap();
    assert!(Arc::ptr_eq(&held, &fixture.session.lease(root.cid()).await.unwrap()), "there is one of each root");
    fixture.store.gc(GcOptions::default()).unwrap();
    assert!(fixture.has(&root) && fixture.has(&leaf));
    drop(held);
    fixture.store.gc(GcOptions::default()).unwrap();
    assert!(!fixture.has(&root));
    assert!(fixture.events().is_empty() && fixture.looked.load(Ordering::Relaxed) == 0);
}

/// What is had at once is what the store has; the rest is brought as ever, and then had at once as well.
#[tokio::test]
async fn what_is_not_had_at_once_is_brought() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskBlockstore::open(dir.path(), Options::default()).unwrap();
    let [here, beside, missing] = blocks();
    let mut writer = store.writer().unwrap();
    for block in [&here, &beside] {
        writer.put(block).unwrap();
    }
    writer.commit(&[]).unwrap();
    let source = Arc::new(Fake::new("source", std::slice::from_ref(&missing)));
    let (opened, asked): (_, Arc<dyn Source>) = (store.clone(), source.clone());
    let options = SessionOptions {
        store: Box::new(move || Ok(Arc::new(opened.clone()))),
        sources: Box::new(move || Ok(vec![asked.clone()])),
        limits: FetchLimits::default(),
        events: Arc::new(|_| {}),
        patience: PATIENCE,
    };
    let session = Session::new(options, tokio::runtime::Handle::current());
    let payer = Arc::new(Payer::default());
    assert!(session.block_at_once(here.cid()).is_none(), "the store is not open");
    let others = vec![*beside.cid(), *missing.cid()];
    assert_eq!(session.block(*here.cid(), others, &payer).await.unwrap(), here);
    // A file system may not be able to tell what is in memory.
    let had = session.block_at_once(beside.cid());
    assert!(had.is_none_or(|had| had == beside));
    assert!(session.block_at_once(missing.cid()).is_none());
    assert_eq!(source.asked().len(), 0, "nobody is asked for what is beside");
    assert_eq!(session.block(*missing.cid(), Vec::new(), &payer).await.unwrap(), missing);
    assert!(session.block_at_once(missing.cid()).is_none(), "it is not committed yet");
    session.close().await;
    assert_eq!(store.get(missing.cid()).unwrap(), Some(missing));
}

#[tokio::test]
async fn a_block_that_several_want_is_asked_for_once() {
    let [block] = blocks();
    let source = late(std::slice::from_ref(&block));
    let fixture = Fixture::new(&[&source]);
    let read = futures::future::join_all((0..5).map(|_| fixture.read(&block))).await;
    assert!(read.into_iter().all(|read| read.unwrap() == block));
    fixture.read(&block).await.unwrap();
    assert_eq!((source.asked().len(), fixture.looked.load(Ordering::Relaxed)), (1, 1));
    assert_eq!(fixture.events(), ["asking late"]);
    // It is here before it is committed, and is committed in the end.
    assert!(!fixture.has(&block));
    assert_eq!(fixture.session.block_if_here(*block.cid()).await, Some(block.clone()));
    fixture.session.close().await;
    assert!(fixture.has(&block));
    assert!(matches!(*fixture.read(&raw(b"late".to_vec())).await.unwrap_err(), FetchError::Ended));
}

#[tokio::test]
async fn what_nobody_has_is_an_error_and_not_asked_for_again_at_once() {
    let [block, other] = blocks();
    let source = Arc::new(Fake::new("poor", std::slice::from_ref(&other)));
    let fixture = Fixture::new(&[&source]);
    for _ in 0..3 {
        let error = fixture.read(&block).await.unwrap_err();
        let FetchError::Missing(missing) = &*error else { panic!("{error:?}") };
        assert_eq!((&missing.missing[..], &missing.sources[0].0[..]), (&[*block.cid()][..], "poor"));
    }
    fixture.read(&other).await.unwrap();
    assert_eq!(source.asked(), [block.cid().to_string(), other.cid().to_string()]);
    assert_eq!(fixture.events(), ["asking poor", "lost"]);
    // Nobody is asked where there is nobody.
    let alone = Fixture::new(&[]);
    assert!(matches!(*alone.read(&block).await.unwrap_err(), FetchError::Missing(_)));
}

#[tokio::test]
async fn who_stalls_is_waited_for_so_long_and_no_longer() {
    let [block, other] = blocks();
    let source = Arc::new(Fake::new("slow", std::slice::from_ref(&other)).on_missing(Step::Hang));
    let fixture = Fixture::with(&[&source], FetchLimits::default(), Duration::from_millis(100), &[]);
    let error = fixture.read(&block).await.unwrap_err();
    let FetchError::Late { sources, .. } = &*error else { panic!("{error:?}") };
    assert_eq!(sources[..], [("slow".to_owned(), "it did not answer within 0.1 s".to_owned())]);
    // It goes on.
    fixture.read(&other).await.unwrap();
}

#[tokio::test]
async fn who_lies_is_named_and_not_asked_again_by_anybody() {
    let [block, other] = blocks();
    let bad_block = || Cause::Block(crate::dag::BlockError::TooLong { size_bytes: 9 });
    let liar = Arc::new(Fake::new("liar", &[]).on_missing(Step::Fail(bad_block)));
    let good = Arc::new(Fake::new("good", &[block.clone(), other.clone()]));
    let fixture = Fixture::new(&[&liar, &good]);
    fixture.read(&block).await.unwrap();
    fixture.read(&other).await.unwrap();
    assert_eq!(fixture.events(), ["asking liar good", "bad liar"]);
    assert_eq!((liar.asked().len(), good.asked().len()), (1, 2));
}

/// What was learned of sources before is known afterwards.
#[tokio::test]
async fn a_part_is_brought_at_once_and_the_rest_block_by_block() {
    let dag = super::super::tests::tree();
    let source = Arc::new(Fake::new("a", &dag.0).with_dags());
    let fixture = Fixture::new(&[&source]);
    let whole = super::super::tests::all(dag.root());
    let brought = fixture.session.bring(whole.clone()).await.unwrap();
    assert_eq!(brought.blocks as usize, dag.0.len());
    drop(brought);
    let [other] = blocks();
    assert!(fixture.read(&other).await.is_err());
    assert_eq!(fixture.session.bring(whole).await.unwrap().blocks, 0);
    assert_eq!(source.asked(), [format!("{}*", dag.root()), other.cid().to_string()]);
    assert_eq!(fixture.looked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_a_cell_may_fetch_is_limited_and_others_go_on() {
    let [first, second, third] = blocks();
    let all = [first.clone(), second.clone(), third.clone()];
    let source = Arc::new(Fake::new("a", &all));
    let fixture = Fixture::with(&[&source], FetchLimits::default(), PATIENCE, &["fetched=1500B"]);
    fixture.read(&first).await.unwrap();
    for block in [&second, &third] {
        assert!(matches!(*fixture.read(block).await.unwrap_err(), FetchError::Limit(_)));
    }
    // What was over the limit had come by then; the third is not asked for.
    assert_eq!(source.asked().len(), 2);
    assert_eq!(fixture.events(), ["asking a", "the limit `fetched` is reached, which is 1500B"]);
    fixture.read(&first).await.unwrap();
    let rich = Arc::new(Payer::of(Account::new(Limits::default())));
    fixture.session.block(*third.cid(), Vec::new(), &rich).await.unwrap();
    fixture.session.close().await;
    assert_eq!(all.map(|block| fixture.has(&block)), [true, false, true]);
}

#[tokio::test]
async fn all_that_is_fetched_is_limited() {
    let all: [Block; 3] = blocks();
    let source = Arc::new(Fake::new("a", &all));
    let limits = FetchLimits { bytes: 1500, ..FetchLimits::default() };
    let fixture = Fixture::with(&[&source], limits, PATIENCE, &[]);
    fixture.read(&all[0]).await.unwrap();
    for block in &all[1..] {
        let error = fixture.read(block).await.unwrap_err();
        assert!(matches!(*error, FetchError::TooManyBytes { limit: 1500 }), "{error:?}");
    }
    assert_eq!(source.asked().len(), 2);
}

#[tokio::test]
async fn what_is_expected_comes_while_nobody_waits() {
    let [first, second, third, never] = blocks();
    let source = Arc::new(Fake::new("a", &[first.clone(), second.clone(), third.clone()]));
    let fixture = Fixture::new(&[&source]);
    fixture.read(&first).await.unwrap();
    fixture.session.expect(vec![*second.cid(), *third.cid(), *never.cid()], &fixture.payer);
    let come = async {
        while fixture.session.block_if_here(*third.cid()).await.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, come).await.unwrap();
    fixture.read(&second).await.unwrap();
    fixture.read(&third).await.unwrap();
    assert_eq!(source.asked()[..3], [&first, &second, &third].map(|block| block.cid().to_string()));
    assert_eq!(fixture.events(), ["asking a"], "nobody has read what is not there");
}

#[tokio::test]
async fn requests_end_with_those_who_want_them() {
    let [wanted, expected, last] = blocks();
    let source = Arc::new(Fake::new("slow", std::slice::from_ref(&last)).on_missing(Step::Hang));
    let fixture = Fixture::new(&[&source]);
    let asked_for = async |count: usize| {
        let wait = async {
            while source.asked().len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap();
    };
    let payer = Arc::new(Payer::of(Account::new(Limits::default())));
    let mut wish = Box::pin(fixture.session.block(*wanted.cid(), Vec::new(), &payer));
    let both_are_asked_for = async {
        asked_for(1).await;
        fixture.session.expect(vec![*expected.cid()], &payer);
        asked_for(2).await;
    };
    tokio::select! {
        _ = &mut wish => panic!("nobody gives it"),
        () = both_are_asked_for => {}
    }
    assert_eq!(source.live(), 2);
    drop(wish);
    drop(payer);
    let ended = async {
        while source.live() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, ended).await.unwrap();
    fixture.read(&last).await.unwrap();
}
