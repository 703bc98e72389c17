//! Sources that behave as they are told.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::blockstore::MemoryBlockstore;
use crate::dag::block::{CODEC_DAG_PB, CODEC_RAW};
use crate::dag::car::CarError;
use crate::dag::unixfs::{self, BuildError, Entry, EntryName, FileBuilder, Profile};
use crate::dag::{Block, Scope, Version, pb};
use crate::remote::{Cause, Deadlines, RemoteError, gateway};

/// What a source does next.
#[derive(Clone)]
pub(super) enum Step {
    Give(Block),
    /// The same after a while.
    GiveLate(Duration, Block),
    Fail(fn() -> Cause),
    Hang,
}

type OnDag = Box<dyn Fn(&Fake, &DagRequest) -> Vec<Step> + Send + Sync>;

/// A source with these blocks.
pub(super) struct Fake {
    name: &'static str,
    blocks: HashMap<Cid, Block>,
    /// What it does with some blocks in place of giving them.
    on_block: Option<HashMap<Cid, Step>>,
    /// What it does when it is asked for a DAG; without it is asked for blocks only.
    on_dag: Option<OnDag>,
    /// What it does when it is asked for a block that it does not have.
    on_missing: Step,
    /// The blocks that it was asked for until now, if it fails with each the first time.
    on_first: Option<Mutex<BTreeSet<Cid>>>,
    /// What it was asked for: CIDs of DAGs with a `*`.
    asked: Mutex<Vec<String>>,
    /// Held by each request for a block that is under way.
    live: Arc<()>,
}

fn not_found() -> Cause {
    Cause::NotFound { message: String::new() }
}

impl Fake {
    pub(super) fn new(name: &'static str, blocks: &[Block]) -> Self {
        Self {
            name,
            blocks: blocks.iter().map(|block| (*block.cid(), block.clone())).collect(),
            on_block: None,
            on_dag: None,
            on_missing: Step::Fail(not_found),
            on_first: None,
            asked: Mutex::default(),
            live: Arc::default(),
        }
    }

    fn on_dag(self, on_dag: impl Fn(&Self, &DagRequest) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self { on_dag: Some(Box::new(on_dag)), ..self }
    }

    pub(super) fn on_missing(self, on_missing: Step) -> Self {
        Self { on_missing, ..self }
    }

    pub(super) fn on_block(self, steps: HashMap<Cid, Step>) -> Self {
        Self { on_block: Some(steps), ..self }
    }

    /// Answers requests for DAGs with all that it has of them.
    pub(super) fn with_dags(self) -> Self {
        self.on_dag(|fake, request| fake.all_below(request).into_iter().map(Step::Give).collect())
    }

    /// The blocks below a root that it has, depth first. Paths are not for this.
    fn all_below(&self, request: &DagRequest) -> Vec<Block> {
        let (mut found, mut seen, mut pending) = (Vec::new(), BTreeSet::new(), vec![request.root]);
        while let Some(cid) = pending.pop() {
            if let Some(block) = self.blocks.get(&cid).filter(|_| seen.insert(cid)) {
                pending.extend(pb::links(block).unwrap().into_iter().rev());
                found.push(block.clone());
            }
        }
        found
    }

    /// How many requests for blocks are under way.
    pub(super) fn live(&self) -> usize {
        Arc::strong_count(&self.live) - 1
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn error(&self, cause: Cause) -> RemoteError {
        RemoteError { remote: self.name.into(), request: "test".into(), cause }
    }
}

impl Source for Fake {
    fn name(&self) -> String {
        self.name.into()
    }

    fn blocks_at_once(&self) -> usize {
        3
    }

    fn offers(&self, _: &DagRequest) -> bool {
        self.on_dag.is_some()
    }

    fn block<'a>(&'a self, cid: &'a Cid) -> BoxFuture<'a, Result<Block, RemoteError>> {
        self.asked.lock().unwrap().push(cid.to_string());
        if let Some(failures) = &self.on_first
            && failures.lock().unwrap().insert(*cid)
        {
            return async move { Err(self.error(Cause::Status { status: 502, message: String::new() })) }.boxed();
        }
        let on_block = self.on_block.as_ref().and_then(|steps| steps.get(cid).cloned());
        let live = self.live.clone();
        let step =
            on_block.unwrap_or_else(|| self.blocks.get(cid).cloned().map_or(self.on_missing.clone(), Step::Give));
        match step {
            Step::Give(block) => async { Ok(block) }.boxed(),
            Step::GiveLate(wait, block) => async move {
                tokio::time::sleep(wait).await;
                Ok(block)
            }
            .boxed(),
            Step::Fail(cause) => async move { Err(self.error(cause())) }.boxed(),
            Step::Hang => async move {
                let _live = live;
                std::future::pending().await
            }
            .boxed(),
        }
    }

    fn dag<'a>(&'a self, request: &'a DagRequest) -> BoxStream<'a, Result<Block, RemoteError>> {
        self.asked.lock().unwrap().push(format!("{}*{}", request.root, request.path));
        let steps = self.on_dag.as_ref().unwrap()(self, request);
        let step = move |step| match step {
            Step::Give(block) => async { Ok(block) }.boxed(),
            Step::GiveLate(wait, block) => async move {
                tokio::time::sleep(wait).await;
                Ok(block)
            }
            .boxed(),
            Step::Fail(cause) => async move { Err(self.error(cause())) }.boxed(),
            Step::Hang => std::future::pending().boxed(),
        };
        stream::iter(steps).then(step).boxed()
    }
}

/// Blocks, the last of them the root.
pub(super) struct Dag(pub(super) Vec<Block>);

impl Dag {
    pub(super) fn root(&self) -> Cid {
        *self.0.last().unwrap().cid()
    }
}

const PROFILE: Profile = Profile { chunk_bytes: 4, ..Profile::UNIXFS_V1_2025 };

fn file(content: &[u8], blocks: &mut Vec<Block>) -> unixfs::Subtree {
    let mut sink = |block| {
        blocks.push(block);
        Ok::<_, BuildError>(())
    };
    let mut builder = FileBuilder::new(PROFILE);
    for chunk in content.chunks(PROFILE.chunk_bytes) {
        builder.push(Bytes::copy_from_slice(chunk), &mut sink).unwrap();
    }
    builder.finish(&mut sink).unwrap().subtree()
}

fn directory(entries: Vec<(&str, unixfs::Subtree)>, blocks: &mut Vec<Block>) -> unixfs::Subtree {
    let entry = |(name, target)| Entry { name: EntryName::new(name).unwrap(), target };
    let mut sink = |block| {
        blocks.push(block);
        Ok::<_, BuildError>(())
    };
    unixfs::directory(&PROFILE, entries.into_iter().map(entry).collect(), &mut sink).unwrap()
}

/// `big`, a file of three blocks and their parent, and `sub` with `one`, a block, and `two`, which is like `big`, but for
/// its last block.
pub(super) fn tree() -> Dag {
    let mut blocks = Vec::new();
    let big = file(b"aaaabbbbcccc", &mut blocks);
    let one = file(b"one", &mut blocks);
    let two = file(b"aaaabbbbdddd", &mut blocks);
    let sub = directory(vec![("one", one), ("two", two)], &mut blocks);
    directory(vec![("big", big), ("sub", sub)], &mut blocks);
    Dag(distinct(blocks))
}

fn distinct(blocks: Vec<Block>) -> Vec<Block> {
    let mut seen = BTreeSet::new();
    blocks.into_iter().filter(|block| seen.insert(*block.cid())).collect()
}

/// Less than it takes until a request is given up, and more than until it gets a rival.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn raw(content: Vec<u8>) -> Block {
    Block::seal(Version::V1, CODEC_RAW, content.into()).unwrap()
}

/// A directory of these blocks.
pub(super) fn directory_of(files: &[Block]) -> Dag {
    let mut blocks = Vec::new();
    let names: Vec<_> = (0..files.len()).map(|number| format!("{number:06}")).collect();
    let subtree = |block: &Block| unixfs::Subtree { cid: *block.cid(), dag_size: block.data().len() as u64 };
    directory(names.iter().zip(files).map(|(name, block)| (name.as_str(), subtree(block))).collect(), &mut blocks);
    Dag(distinct([files, &blocks].concat()))
}

/// A store, and what happened.
#[derive(Default)]
struct Fixture {
    store: MemoryBlockstore,
    events: Mutex<Vec<String>>,
}

impl Fixture {
    fn holding(blocks: &[Block]) -> Self {
        let fixture = Self::default();
        let mut writer = fixture.store.writer().unwrap();
        for block in blocks {
            writer.put(block).unwrap();
        }
        writer.commit(&[]).unwrap();
        fixture
    }

    async fn fetch_with(
        &self,
        request: DagRequest,
        sources: &[&Arc<Fake>],
        limits: FetchLimits,
    ) -> Result<Fetched, FetchError> {
        let note = |event: FetchEvent<'_>| {
            if let FetchEvent::BadSource { source, .. } = event {
                self.events.lock().unwrap().push(format!("bad {source}"));
            }
        };
        let sources = sources.iter().map(|source| (*source).clone() as Arc<dyn Source>).collect();
        fetch(Arc::new(self.store.clone()), request, sources, limits, &note).await
    }

    async fn fetch(&self, dag: &Dag, sources: &[&Arc<Fake>]) -> Result<Fetched, FetchError> {
        self.fetch_with(all(dag.root()), sources, FetchLimits::default()).await
    }

    /// Which of the blocks are in the store.
    fn has(&self, blocks: &[Block]) -> Vec<bool> {
        blocks.iter().map(|block| self.store.has(block.cid()).unwrap()).collect()
    }

    #[track_caller]
    fn assert_whole(&self, dag: &Dag) {
        assert!(self.has(&dag.0).iter().all(|has| *has), "{:?}", self.has(&dag.0));
    }

    fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }
}

pub(super) fn all(root: Cid) -> DagRequest {
    DagRequest { root, path: String::new(), scope: Scope::All }
}

fn missing(result: Result<Fetched, FetchError>) -> Missing {
    match result {
        Err(FetchError::Missing(missing)) => *missing,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nobody_is_asked_for_what_is_here() {
    let dag = tree();
    let fixture = Fixture::holding(&dag.0);
    let source = Arc::new(Fake::new("a", &[]).with_dags());
    let fetched = fixture.fetch(&dag, &[&source]).await.unwrap();
    assert_eq!((fetched.end, fetched.blocks, fetched.bytes), (dag.root(), 0, 0));
    assert!(source.asked().is_empty());
}

#[tokio::test]
async fn a_dag_comes_in_one_request() {
    let dag = tree();
    let fixture = Fixture::default();
    let source = Arc::new(Fake::new("a", &dag.0).with_dags());
    let fetched = fixture.fetch(&dag, &[&source]).await.unwrap();
    assert_eq!(fetched.blocks, dag.0.len() as u64);
    assert_eq!(fetched.bytes, dag.0.iter().map(|block| block.data().len() as u64).sum::<u64>());
    assert_eq!(source.asked(), [format!("{}*", dag.root())]);
    fixture.assert_whole(&dag);
}

#[tokio::test]
async fn blocks_come_one_by_one_where_there_are_no_dags() {
    let dag = tree();
    let fixture = Fixture::default();
    let source = Arc::new(Fake::new("a", &dag.0));
    fixture.fetch(&dag, &[&source]).await.unwrap();
    fixture.assert_whole(&dag);
    assert_eq!(source.asked().len(), dag.0.len());
}

#[tokio::test]
async fn only_what_is_missing_is_asked_for() {
    let dag = tree();
    // All but `big` and its last block.
    let here: Vec<_> = dag.0.iter().filter(|block| ![2, 3].contains(&position(&dag, block))).cloned().collect();
    let fixture = Fixture::holding(&here);
    let source = Arc::new(Fake::new("a", &dag.0).with_dags());
    let fetched = fixture.fetch(&dag, &[&source]).await.unwrap();
    assert_eq!((fetched.blocks, source.asked()), (2, vec![format!("{}*", dag.0[3].cid())]));
    fixture.assert_whole(&dag);
}

fn position(dag: &Dag, block: &Block) -> usize {
    dag.0.iter().position(|other| other == block).unwrap()
}

#[tokio::test]
async fn a_refused_dag_comes_block_by_block() {
    for refusal in [
        (|| Cause::Status { status: 406, message: String::new() }) as fn() -> Cause,
        not_found,
        || Cause::Kind { expected: "car", found: "text/html".into() },
        || Cause::Car(CarError::Truncated { end: 0, last_block: None }),
    ] {
        let dag = tree();
        let fixture = Fixture::default();
        let source = Arc::new(Fake::new("a", &dag.0).on_dag(move |_, _| vec![Step::Fail(refusal)]));
        fixture.fetch(&dag, &[&source]).await.unwrap();
        fixture.assert_whole(&dag);
        assert_eq!(source.asked().iter().filter(|asked| asked.contains('*')).count(), 1);
    }
}

/// W-1 of `cases.md`: a header, and a clean end.
#[tokio::test]
async fn an_empty_answer_is_no_success() {
    let dag = tree();
    let empty = Arc::new(Fake::new("empty", &[]).on_dag(|_, _| vec![]));
    let missing = missing(Fixture::default().fetch(&dag, &[&empty]).await);
    assert_eq!(missing.missing, [dag.root()]);
    assert_eq!(missing.sources, [("empty".to_owned(), "it does not have the content".to_owned())]);
    let fixture = Fixture::default();
    let good = Arc::new(Fake::new("good", &dag.0).with_dags());
    fixture.fetch(&dag, &[&empty, &good]).await.unwrap();
    fixture.assert_whole(&dag);
}

/// W-2 of `cases.md`: an archive that is cut where a block ends, and nobody says so.
#[tokio::test]
async fn a_short_answer_is_completed_or_an_error() {
    let dag = tree();
    for given in 0..dag.0.len() {
        let cut = move |fake: &Fake, request: &DagRequest| {
            fake.all_below(request).into_iter().take(given).map(Step::Give).collect::<Vec<_>>()
        };
        let fixture = Fixture::default();
        let source = Arc::new(Fake::new("a", &dag.0).on_dag(cut));
        fixture.fetch(&dag, &[&source]).await.unwrap();
        fixture.assert_whole(&dag);
        // The same where the rest is nowhere: an error, and what came stays for the next time.
        let there: Vec<_> = Fake::new("", &dag.0).all_below(&all(dag.root())).into_iter().take(given).collect();
        let fixture = Fixture::default();
        let source = Arc::new(Fake::new("a", &there).with_dags());
        let missing = missing(fixture.fetch(&dag, &[&source]).await);
        assert!(!missing.missing.is_empty());
        assert_eq!(fixture.has(&there), vec![true; given]);
        let rest = Arc::new(Fake::new("b", &dag.0).with_dags());
        let fetched = fixture.fetch(&dag, &[&rest]).await.unwrap();
        assert_eq!(fetched.blocks as usize, dag.0.len() - given);
        fixture.assert_whole(&dag);
    }
}

#[tokio::test]
async fn who_lies_is_named_and_not_asked_again() {
    let dag = tree();
    let bad_block = || Cause::Block(crate::dag::BlockError::TooLong { size_bytes: 9 });
    let fixture = Fixture::default();
    let liar = Arc::new(Fake::new("liar", &dag.0).on_dag(move |fake, request| {
        let some = fake.all_below(request).into_iter().take(2).map(Step::Give);
        some.chain([Step::Fail(bad_block)]).collect()
    }));
    let good = Arc::new(Fake::new("good", &dag.0).with_dags());
    fixture.fetch(&dag, &[&liar, &good]).await.unwrap();
    fixture.assert_whole(&dag);
    assert_eq!(fixture.events(), ["bad liar"]);
    assert_eq!(liar.asked().len(), 1);
    // Alone it is of no use, whatever else it has.
    let fixture = Fixture::default();
    let missing = missing(fixture.fetch(&dag, &[&liar]).await);
    assert!(missing.sources[0].1.contains("it sent a bad block"), "{missing:?}");
}

#[tokio::test]
async fn a_source_that_hangs_gets_a_rival() {
    let dag = tree();
    for slow in [
        Fake::new("slow", &dag.0).on_dag(|_, _| vec![Step::Hang]),
        Fake { on_missing: Step::Hang, ..Fake::new("slow", &[]) },
    ] {
        let (slow, fixture) = (Arc::new(slow), Fixture::default());
        let good = Arc::new(Fake::new("good", &dag.0).with_dags());
        // A rival comes long before the other request is given up.
        timeout(PATIENCE, fixture.fetch(&dag, &[&slow, &good])).await.unwrap().unwrap();
        fixture.assert_whole(&dag);
        assert_eq!(slow.asked().len(), 1);
    }
}

#[tokio::test]
async fn blocks_are_gathered_from_several_sources() {
    let dag = tree();
    for with_dags in [false, true] {
        let half = |odd: usize| {
            let blocks: Vec<_> = dag.0.iter().skip(odd).step_by(2).cloned().collect();
            let fake = Fake::new(["even", "odd"][odd], &blocks);
            Arc::new(if with_dags { fake.with_dags() } else { fake })
        };
        let fixture = Fixture::default();
        fixture.fetch(&dag, &[&half(0), &half(1)]).await.unwrap();
        fixture.assert_whole(&dag);
    }
}

#[tokio::test]
async fn what_belongs_to_nothing_is_not_stored() {
    let dag = tree();
    let other = Block::seal(Version::V1, CODEC_RAW, Bytes::from_static(b"other")).unwrap();
    let stranger = other.clone();
    let source = Arc::new(Fake::new("a", &dag.0).on_dag(move |fake, request| {
        let all = fake.all_below(request).into_iter();
        // Each twice, and a stranger before it.
        all.flat_map(|block| [stranger.clone(), block.clone(), block]).map(Step::Give).collect()
    }));
    let fixture = Fixture::default();
    let fetched = fixture.fetch(&dag, &[&source]).await.unwrap();
    assert_eq!(fetched.blocks as usize, dag.0.len());
    assert!(!fixture.store.has(other.cid()).unwrap());
}

#[tokio::test]
async fn blocks_may_come_in_any_order_from_the_root_on() {
    let dag = tree();
    let source = Arc::new(Fake::new("a", &dag.0).on_dag(|fake, request| {
        // Breadth first.
        let (mut found, mut level) = (Vec::new(), vec![request.root]);
        while !level.is_empty() {
            let blocks: Vec<_> = level.iter().map(|cid| fake.blocks[cid].clone()).collect();
            level = blocks.iter().flat_map(|block| pb::links(block).unwrap()).collect();
            found.extend(blocks.into_iter().map(Step::Give));
        }
        found
    }));
    let fixture = Fixture::default();
    fixture.fetch(&dag, &[&source]).await.unwrap();
    assert_eq!(source.asked().len(), 1);
}

/// A gateway at a name such as `bafy….ipfs.localhost` knows only version 1.
#[tokio::test]
async fn a_root_may_come_under_its_other_version() {
    let dag = tree();
    let root_v0 = Cid::new_v0(*dag.root().hash()).unwrap();
    let source = Arc::new(Fake::new("a", &dag.0).on_dag(move |fake, request| {
        assert_eq!(request.root, root_v0);
        fake.all_below(&all(tree().root())).into_iter().map(Step::Give).collect()
    }));
    let fixture = Fixture::default();
    let fetched = fixture.fetch_with(all(root_v0), &[&source], FetchLimits::default()).await.unwrap();
    assert_eq!((fetched.end, source.asked()), (root_v0, vec![format!("{root_v0}*")]));
    fixture.assert_whole(&dag);
}

#[tokio::test]
async fn only_the_path_and_what_is_below_it_comes() {
    let dag = tree();
    let request = |path: &str, scope| DagRequest { root: dag.root(), path: path.into(), scope };
    let check = async |path: &str, scope: Scope, expected: &[usize]| {
        let fixture = Fixture::default();
        let source = Arc::new(Fake::new("a", &dag.0));
        let fetched = fixture.fetch_with(request(path, scope), &[&source], FetchLimits::default()).await.unwrap();
        let has: Vec<_> = (0..dag.0.len()).filter(|at| fixture.has(&dag.0)[*at]).collect();
        assert_eq!(has, expected, "{path} {scope:?}");
        fetched.end
    };
    // 0 to 2: the pieces of `big`; 3: `big`; 4: `one`; 5: the last piece of `two`; 6: `two`; 7: `sub`; 8: the root.
    assert_eq!(check("big", Scope::All, &[0, 1, 2, 3, 8]).await, *dag.0[3].cid());
    assert_eq!(check("sub/one", Scope::All, &[4, 7, 8]).await, *dag.0[4].cid());
    check("sub/two", Scope::Entity, &[0, 1, 5, 6, 7, 8]).await;
    check("sub/two", Scope::Block, &[6, 7, 8]).await;
    check("sub", Scope::Entity, &[7, 8]).await;
    check("", Scope::Entity, &[8]).await;
    check("", Scope::All, &[0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
}

#[tokio::test]
async fn a_path_is_asked_for_with_what_is_below_it() {
    let dag = tree();
    let source =
        Arc::new(Fake::new("a", &dag.0).on_dag(|fake, _| {
            [8, 7, 6, 0, 1, 5].map(|at| Step::Give(fake.blocks[tree().0[at].cid()].clone())).to_vec()
        }));
    let request = DagRequest { root: dag.root(), path: "sub/two".into(), scope: Scope::All };
    let fetched = Fixture::default().fetch_with(request, &[&source], FetchLimits::default()).await.unwrap();
    assert_eq!(fetched.end, *dag.0[6].cid());
    assert_eq!(source.asked(), [format!("{}*sub/two", dag.root())]);
}

#[tokio::test]
async fn a_path_that_leads_nowhere_is_an_error() {
    let dag = tree();
    let check = async |path: &str| {
        let source = Arc::new(Fake::new("a", &dag.0));
        let request = DagRequest { root: dag.root(), path: path.into(), scope: Scope::All };
        match Fixture::default().fetch_with(request, &[&source], FetchLimits::default()).await {
            Err(FetchError::Path(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(check("sub/three").await, WalkError::NotFound { .. }));
    assert!(matches!(check("big/x").await, WalkError::NotADirectory { .. }));
    assert!(matches!(check("../x").await, WalkError::Path(_)));
}

#[tokio::test]
async fn what_nobody_has_is_named() {
    let dag = tree();
    let missing_1 = missing(Fixture::default().fetch(&dag, &[]).await);
    assert_eq!((missing_1.missing, missing_1.has_more), (vec![dag.root()], false));
    assert!(missing_1.sources.is_empty());
    // A directory of many files, of which nobody has one.
    let mut blocks = Vec::new();
    let names: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    let files = names.iter().map(|name| (name.as_str(), file(name.as_bytes(), &mut blocks))).collect();
    directory(files, &mut blocks);
    let root = Dag(blocks.split_off(20));
    let source = Arc::new(Fake::new("a", &root.0).with_dags());
    let missing = missing(Fixture::default().fetch(&root, &[&source]).await);
    assert_eq!((missing.missing.len(), missing.has_more), (MISSING_MAX, true));
}

#[tokio::test]
async fn limits_hold() {
    let dag = tree();
    let bytes: u64 = dag.0.iter().map(|block| block.data().len() as u64).sum();
    let exact = FetchLimits { bytes, blocks: dag.0.len() as u64, depth: 3 };
    let check = async |limits: FetchLimits| {
        let fixture = Fixture::default();
        let source = Arc::new(Fake::new("a", &dag.0).with_dags());
        let result = fixture.fetch_with(all(dag.root()), &[&source], limits).await;
        assert!(result.is_ok() || fixture.has(&dag.0).iter().all(|has| !has), "something was stored");
        result.map(|_| ())
    };
    check(exact).await.unwrap();
    let over = check(FetchLimits { bytes: bytes - 1, ..exact }).await;
    assert!(matches!(over, Err(FetchError::TooManyBytes { .. })), "{over:?}");
    let over = check(FetchLimits { blocks: exact.blocks - 1, ..exact }).await;
    assert!(matches!(over, Err(FetchError::TooManyBlocks { .. })), "{over:?}");
    let over = check(FetchLimits { depth: 2, ..exact }).await;
    assert!(matches!(over, Err(FetchError::TooDeep { .. })), "{over:?}");
}

/// Each level links twice to the next: 2^60 leaves, and 61 blocks.
#[tokio::test]
async fn a_dag_that_doubles_at_each_level_is_small() {
    let mut blocks = vec![Block::seal(Version::V1, CODEC_RAW, Bytes::from_static(b"x")).unwrap()];
    for _ in 0..60 {
        let link = pb::Link { cid: *blocks.last().unwrap().cid(), name: Some(""), tsize: Some(0) };
        let node = pb::Node { links: vec![link, link], data: None };
        blocks.push(Block::seal(Version::V1, CODEC_DAG_PB, node.encode().into()).unwrap());
    }
    let dag = Dag(blocks);
    let fixture = Fixture::default();
    let source = Arc::new(Fake::new("a", &dag.0).with_dags());
    assert_eq!(fixture.fetch(&dag, &[&source]).await.unwrap().blocks, 61);
}

#[tokio::test]
async fn content_that_is_malformed_is_an_error() {
    let garbage = Dag(vec![Block::seal(Version::V1, CODEC_DAG_PB, Bytes::from_static(b"\xff")).unwrap()]);
    let source = Arc::new(Fake::new("a", &garbage.0));
    let error = Fixture::default().fetch(&garbage, &[&source]).await.unwrap_err();
    assert!(matches!(error, FetchError::Malformed { .. }), "{error:?}");
    // dag-cbor, and blake2b-256.
    let digest = multihash::Multihash::wrap(0xb220, &[7; 32]).unwrap();
    for cid in [Cid::new_v1(0x71, *garbage.root().hash()), Cid::new_v1(CODEC_RAW, digest)] {
        let error = Fixture::default().fetch_with(all(cid), &[&source], FetchLimits::default()).await.unwrap_err();
        assert!(matches!(error, FetchError::Unsupported { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn identity_cids_are_not_asked_for() {
    let cid: Cid = "bafkqaaa".parse().unwrap();
    let fetched = Fixture::default().fetch_with(all(cid), &[], FetchLimits::default()).await.unwrap();
    assert_eq!(fetched.end, cid);
}

#[tokio::test]
async fn a_source_that_fails_and_fails_is_left_alone() {
    let mut blocks = Vec::new();
    let names: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    let files = names.iter().map(|name| (name.as_str(), file(name.as_bytes(), &mut blocks))).collect();
    directory(files, &mut blocks);
    let dag = Dag(blocks);
    let busy = || Cause::Status { status: 503, message: String::new() };
    let broken = Arc::new(Fake { on_missing: Step::Fail(busy), ..Fake::new("broken", &[]) });
    let good = Arc::new(Fake::new("good", &dag.0));
    let fixture = Fixture::default();
    fixture.fetch(&dag, &[&broken, &good]).await.unwrap();
    fixture.assert_whole(&dag);
    assert!(broken.asked().len() <= 6, "{:?}", broken.asked());
}

/// The next version of a large image: most of what its only source sends is here.
#[tokio::test]
async fn a_source_may_send_much_that_is_here() {
    let (big, new) = (raw(vec![0; 1 << 20]), raw(b"new".to_vec()));
    let dag = directory_of(&[big.clone(), new.clone()]);
    let fixture = Fixture::holding(std::slice::from_ref(&big));
    let root = dag.0.last().unwrap().clone();
    let source = Arc::new(Fake::new("a", &dag.0).on_dag(move |_, _| {
        let here = std::iter::repeat_n(big.clone(), 300);
        [root.clone()].into_iter().chain(here).chain([new.clone()]).map(Step::Give).collect()
    }));
    fixture.fetch(&dag, &[&source]).await.unwrap();
    fixture.assert_whole(&dag);
    // It was stopped, and asked for what was missing.
    assert_eq!(source.asked(), [format!("{}*", dag.root()), dag.0[1].cid().to_string()]);
}

#[tokio::test]
async fn a_source_may_not_send_much_that_belongs_to_nothing() {
    let (other, new) = (raw(vec![0; 1 << 20]), raw(b"new".to_vec()));
    let dag = directory_of(std::slice::from_ref(&new));
    let root = dag.0.last().unwrap().clone();
    let source = Arc::new(Fake::new("a", &dag.0).on_dag(move |_, _| {
        let others = std::iter::repeat_n(other.clone(), 300);
        [root.clone()].into_iter().chain(others).chain([new.clone()]).map(Step::Give).collect()
    }));
    let missing = missing(Fixture::default().fetch(&dag, &[&source]).await);
    assert_eq!(missing.sources, [("a".to_owned(), "it sends what was not asked for".to_owned())]);
}

/// It has shown the root, and with it the claim to bring all the rest.
#[tokio::test]
async fn a_source_that_trickles_does_not_keep_others_out() {
    let files: Vec<_> = (0..20_u8).map(|number| raw(vec![number])).collect();
    let dag = directory_of(&files);
    let root = dag.0.last().unwrap().clone();
    for junk in [raw(b"junk".to_vec()), files[19].clone()] {
        let root = root.clone();
        let slow = Arc::new(Fake::new("slow", &dag.0).on_dag(move |_, _| {
            let late = Step::GiveLate(Duration::from_secs(2), junk.clone());
            [Step::Give(root.clone())].into_iter().chain(std::iter::repeat_n(late, 1000)).collect()
        }));
        let good = Arc::new(Fake::new("good", &dag.0));
        let fixture = Fixture::default();
        timeout(PATIENCE, fixture.fetch(&dag, &[&slow, &good])).await.unwrap().unwrap();
        fixture.assert_whole(&dag);
        assert_eq!(slow.asked().len(), 1, "{:?}", slow.asked());
    }
}

/// Who is slow is still the one who has it.
#[tokio::test]
async fn a_source_that_trickles_goes_on_if_nobody_else_has_it() {
    let files: Vec<_> = (0..4_u8).map(|number| raw(vec![number])).collect();
    let dag = directory_of(&files);
    let root = dag.0.last().unwrap().clone();
    let slow = Arc::new(Fake::new("slow", &[]).on_dag(move |_, _| {
        let late = files.iter().map(|file| Step::GiveLate(Duration::from_secs(3), file.clone()));
        [Step::Give(root.clone())].into_iter().chain(late).collect()
    }));
    let poor = Arc::new(Fake::new("poor", &[]));
    let fixture = Fixture::default();
    timeout(PATIENCE, fixture.fetch(&dag, &[&slow, &poor])).await.unwrap().unwrap();
    fixture.assert_whole(&dag);
    assert_eq!(slow.asked().len(), 1, "{:?}", slow.asked());
}

#[tokio::test]
async fn a_failure_may_pass() {
    let files: Vec<_> = (0..30_u8).map(|number| raw(vec![number])).collect();
    let dag = directory_of(&files);
    let fixture = Fixture::default();
    // The root and then three blocks at once fail, and come when they are asked for again.
    let source = Arc::new(Fake { on_first: Some(Mutex::default()), ..Fake::new("a", &dag.0) });
    fixture.fetch(&dag, &[&source]).await.unwrap();
    fixture.assert_whole(&dag);
    assert_eq!(source.asked().len(), 2 * dag.0.len());
}

/// More blocks at once than are held open, in any order, as DAGs and one by one.
#[tokio::test]
async fn few_of_many_blocks_are_open_at_once() {
    let count = walk::OPEN_MAX + 1000;
    let files: Vec<_> = (0..count as u32).map(|number| raw(number.to_le_bytes().to_vec())).collect();
    let links = files.iter().map(|file| pb::Link { cid: *file.cid(), name: Some(""), tsize: Some(4) }).collect();
    let node = pb::Node { links, data: None }.encode();
    let root = Block::seal(Version::V1, CODEC_DAG_PB, node.into()).unwrap();
    let dag = Dag([files, vec![root.clone()]].concat());
    let store = Arc::new(MemoryBlockstore::default());
    let (mut keeper, _) = Keeper::start(store, all(dag.root()), FetchLimits::default()).unwrap();
    assert_eq!(keeper.advance(&[(0, root)]).unwrap().wants.len(), walk::OPEN_MAX);
    let backwards = |fake: &Fake, request: &DagRequest| -> Vec<Step> {
        let mut blocks = fake.all_below(request);
        blocks[1..].reverse();
        blocks.into_iter().map(Step::Give).collect()
    };
    for (source, requests) in [
        (Fake::new("forwards", &dag.0).with_dags(), 1),
        (Fake::new("backwards", &dag.0).on_dag(backwards), 1),
        (Fake::new("blocks", &dag.0), dag.0.len()),
    ] {
        let (source, fixture) = (Arc::new(source), Fixture::default());
        let fetched = fixture.fetch(&dag, &[&source]).await.unwrap();
        assert_eq!((fetched.blocks as usize, source.asked().len()), (dag.0.len(), requests), "{}", source.name);
        fixture.assert_whole(&dag);
    }
}

/// A gateway that says that its CAR is long tells no lie: the limit is ours.
#[tokio::test]
async fn a_long_archive_is_over_the_limit() {
    let dag = tree();
    let mut car = crate::dag::car::encode_header(&[dag.root()]);
    for block in dag.0.iter().rev() {
        car.extend(crate::dag::car::encode_section_head(block.cid(), block.data().len()));
        car.extend_from_slice(block.data());
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.ipld.car\r\nContent-Length: 1099511627776\r\n\r\n";
            stream.write_all(&[head.as_bytes(), &car].concat()).await.unwrap();
            tokio::time::sleep(PATIENCE).await;
        }
    });
    let gateway = gateway::Client::new(address, Deadlines::default()).unwrap();
    let limits = FetchLimits { bytes: 100, ..FetchLimits::default() };
    let bad = Mutex::new(0);
    let note = |event: FetchEvent<'_>| {
        if let FetchEvent::BadSource { .. } = event {
            *bad.lock().unwrap() += 1;
        }
    };
    let store = Arc::new(MemoryBlockstore::default());
    let fetched = fetch(store, all(dag.root()), vec![Arc::new(gateway)], limits, &note).await;
    assert!(matches!(fetched, Err(FetchError::TooManyBytes { limit: 100 })), "{fetched:?}");
    assert_eq!(*bad.lock().unwrap(), 0);
}

/// Three files that share pieces, in nested folders: more blocks than a source takes requests at once.
fn larger_tree() -> Dag {
    let mut blocks = Vec::new();
    let mut folder = file(b"", &mut blocks);
    for level in 0..4_u8 {
        let names: Vec<_> = (0..5_u8).map(|number| number.to_string()).collect();
        let content = |number: u8| [[number; 4], [level; 4], [7; 4], [number + level; 4]].concat();
        let mut entries: Vec<_> =
            (0..5_u8).zip(&names).map(|(number, name)| (name.as_str(), file(&content(number), &mut blocks))).collect();
        entries.push(("below", folder));
        folder = directory(entries, &mut blocks);
    }
    Dag(distinct(blocks))
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whoever has what, and in whatever form they give it: what is somewhere comes, and what is nowhere is named.
    #[test]
    fn what_is_somewhere_comes(
        owners in proptest::collection::vec(0..16_u8, 0..200),
        with_dags: [bool; 3],
        given in proptest::collection::vec(0..40_usize, 3),
    ) {
        let dag = larger_tree();
        // A bit for the store and each source; by default the last source has everything.
        let owners_of = |at: usize| owners.get(at).copied().unwrap_or(8);
        let of = |bit: u8| -> Vec<Block> {
            let owned = dag.0.iter().enumerate().filter(|(at, _)| owners_of(*at) & bit != 0);
            owned.map(|(_, block)| block.clone()).collect()
        };
        let source = |index: usize| {
            let fake = Fake::new(["a", "b", "c"][index], &of(2 << index));
            let given = given[index];
            let cut = move |fake: &Fake, request: &DagRequest| -> Vec<Step> {
                fake.all_below(request).into_iter().take(given).map(Step::Give).collect()
            };
            Arc::new(if with_dags[index] { fake.on_dag(cut) } else { fake })
        };
        let sources = [source(0), source(1), source(2)];
        let absent: Vec<_> =
            dag.0.iter().enumerate().filter(|(at, _)| owners_of(*at) == 0).map(|(_, block)| *block.cid()).collect();
        let fixture = Fixture::holding(&of(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(fixture.fetch(&dag, &[&sources[0], &sources[1], &sources[2]]));
        match result {
            Ok(fetched) => {
                proptest::prop_assert!(absent.is_empty());
                proptest::prop_assert_eq!(fetched.blocks as usize, dag.0.len() - of(1).len());
                fixture.assert_whole(&dag);
            }
            Err(FetchError::Missing(missing)) => {
                proptest::prop_assert!(missing.missing.iter().all(|cid| absent.contains(cid)));
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}
