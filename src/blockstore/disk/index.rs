//! The index: which block is where. An SQLite database, since several processes use it at once.
//!
//! Nothing in it is needed: all of it can be made again from the packs. So a commit does not wait until it is on disk; a
//! database in WAL mode with `synchronous=NORMAL` is sound after a loss of power, though perhaps of an earlier state, and
//! [`recover`](super::recover) adds what it then lacks. What is found to be no sound database is thrown away.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use super::super::key::Key;
use super::super::walk::Numbers;
use super::super::{CACHE_BYTES_MAX, CACHE_VALUE_BYTES_MAX, StoreError};
use super::layout::PackId;
use super::pack::Extent;

/// The version of the tables, in the database's `user_version`. 0 is a database without any.
const SCHEMA_VERSION: i64 = 2;

/// `block.number` counts from 0 and never comes back; `counter` has the next. `block.hash` is the digest, whose length tells
/// the hash function. `pack.blocks` counts the rows of `block` with this pack, so that it shows when some are lost.
const SCHEMA: &str = "
    CREATE TABLE pack (id INTEGER PRIMARY KEY, size_bytes INTEGER NOT NULL, blocks INTEGER NOT NULL) STRICT;
    CREATE TABLE block (hash BLOB PRIMARY KEY, number INTEGER NOT NULL, pack INTEGER NOT NULL, at INTEGER NOT NULL,
        size INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE counter (next_number INTEGER NOT NULL) STRICT;
    INSERT INTO counter VALUES (0);
    CREATE TABLE cache (key TEXT PRIMARY KEY, used INTEGER NOT NULL, value BLOB NOT NULL) STRICT;
    PRAGMA user_version = 2;
";

/// How long a statement waits for the writer of another process: commits of a million blocks take seconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(120);

/// The write-ahead log is moved into the database when it is longer, in bytes. A process that opens the index reads the log,
/// at some GB a second.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// After this many lookups a snapshot of the database is given up, so that its log does not grow for ever.
const SNAPSHOT_LOOKUPS: u32 = 4096;

/// The [`Location`] of a block.
const FIND: &str = "SELECT number, pack, at, size FROM block WHERE hash = ?1";

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) number: u64,
    pub(super) pack: PackId,
    pub(super) extent: Extent,
}

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    /// It is not there, is no sound database, or is of an older version: it has to be made again.
    #[error("{0}")]
    Unusable(String),
    /// It is of a newer version.
    #[error("it was written by a newer ww")]
    Newer,
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows,
        };
        let is_damage = match &error {
            rusqlite::Error::SqliteFailure(failure, message) => match failure.code {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => true,
                // Tables that are not there.
                ErrorCode::Unknown => message.as_deref().is_some_and(|message| message.starts_with("no such ")),
                _ => false,
            },
            rusqlite::Error::SqlInputError { .. } => true,
            FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | QueryReturnedNoRows => true,
            _ => false,
        };
        if is_damage { Self::Unusable(error.to_string()) } else { Self::Sqlite(error) }
    }
}

impl IndexError {
    pub(super) fn into_store_error(self, path: PathBuf) -> StoreError {
        match self {
            Self::Newer => StoreError::Newer { dir: path },
            Self::Sqlite(error) => StoreError::Index { path, source: error.into() },
            Self::Io(error) => StoreError::Index { path, source: error.into() },
            Self::Unusable(reason) => StoreError::Index { path, source: reason.into() },
        }
    }
}

type Result<T> = std::result::Result<T, IndexError>;

/// A connection to the database.
#[derive(Debug)]
pub(super) struct Index {
    connection: Connection,
    path: PathBuf,
    /// Device and inode of the file that was opened.
    file: (u64, u64),
    /// Lookups that the open snapshot may still be used for; 0 if none is open.
    snapshot_lookups: u32,
    /// Whether the log is not to be shortened now.
    keeps_log: bool,
}

impl Index {
    /// Opens the database. Nobody may replace it meanwhile: SQLite finds the log by its name, and would take that of another
    /// database for this one's.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = match file_of(path) {
            Ok(Some(file)) => file,
            Ok(None) => return Err(IndexError::Unusable("it is missing".to_owned())),
            Err(error) => return Err(error.into()),
        };
        let connection = connect(path)?;
        prepare(&connection, "NORMAL")?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        match version {
            SCHEMA_VERSION if mode == "wal" => {}
            SCHEMA_VERSION => return Err(IndexError::Unusable(format!("its journal mode is {mode}"))),
            newer if newer > SCHEMA_VERSION => return Err(IndexError::Newer),
            older => return Err(IndexError::Unusable(format!("its version is {older}"))),
        }
        Ok(Self { connection, path: path.to_owned(), file, snapshot_lookups: 0, keeps_log: false })
    }

    /// Makes a database of an empty file, beside which there must be no log. Nobody may open it meanwhile. It is not waited for
    /// to be on disk: up to the end, or after a loss of power, it is one without tables, which is not used.
    ///
    /// With the tables the log begins, which would else cost the first commit two fsyncs. A new log needs none: no older one
    /// can come back.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = file_of(path)?.ok_or_else(|| IndexError::Unusable("it is missing".to_owned()))?;
        let connection = connect(path)?;
        prepare(&connection, "OFF")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;"))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(Self { connection, path: path.to_owned(), file, snapshot_lookups: 0, keeps_log: false })
    }

    /// Whether the database still is the file of its name: one that was thrown away is not.
    pub(super) fn is_current(&self) -> bool {
        file_of(&self.path).is_ok_and(|file| file == Some(self.file))
    }

    /// Whether a long log is left to be shortened by another commit than the next.
    pub(super) fn set_keeps_log(&mut self, keeps_log: bool) {
        self.keeps_log = keeps_log;
    }

    /// Where a block is.
    pub(super) fn find(&self, key: &Key) -> Result<Option<Location>> {
        Ok(self.connection.prepare_cached(FIND)?.query_row(params![key.as_bytes()], location).optional()?)
    }

    /// Where those of some blocks are that are here, all at one instant.
    pub(super) fn find_all(&mut self, keys: &[Key]) -> Result<Vec<(Key, Location)>> {
        self.end_snapshot()?;
        let transaction = self.connection.transaction()?;
        let mut found = Vec::with_capacity(keys.len());
        {
            let mut statement = transaction.prepare_cached(FIND)?;
            for key in keys {
                if let Some(location) = statement.query_row(params![key.as_bytes()], location).optional()? {
                    found.push((key.clone(), location));
                }
            }
        }
        transaction.commit()?;
        Ok(found)
    }

    /// As [`Index::find`], in a snapshot that is kept for the next lookups, which makes them four times as fast. What others
    /// commit meanwhile may not be seen; what they remove is.
    pub(super) fn find_in_snapshot(&mut self, key: &Key) -> Result<Option<Location>> {
        if self.snapshot_lookups == 0 {
            self.connection.execute_batch("BEGIN")?;
            self.snapshot_lookups = SNAPSHOT_LOOKUPS;
        }
        let found = self.find(key)?;
        self.snapshot_lookups -= 1;
        if self.snapshot_lookups == 0 {
            self.connection.execute_batch("COMMIT")?;
        }
        Ok(found)
    }

    /// Gives up the snapshot of [`Index::find_in_snapshot`].
    pub(super) fn end_snapshot(&mut self) -> Result<()> {
        if std::mem::take(&mut self.snapshot_lookups) > 0 {
            self.connection.execute_batch("COMMIT")?;
        }
        Ok(())
    }

    /// All packs, ascending, with their lengths in bytes.
    pub(super) fn packs(&self) -> Result<Vec<(PackId, u64)>> {
        let mut statement = self.connection.prepare_cached("SELECT id, size_bytes FROM pack ORDER BY id")?;
        let packs = statement.query_map([], |row| Ok((PackId(row.get(0)?), row.get(1)?)))?;
        Ok(packs.collect::<rusqlite::Result<_>>()?)
    }

    /// The length of all packs together, in bytes.
    pub(super) fn size_bytes(&self) -> Result<u64> {
        let sql = "SELECT coalesce(sum(size_bytes), 0) FROM pack";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// Checks what the tables say of each other. Whoever removes something, or says that all is good, has to trust the index in
    /// that: each block has a number of its own and is in a pack, and no row is lost.
    ///
    /// # Errors
    /// [`IndexError::Unusable`] if they contradict each other.
    pub(super) fn check(&mut self) -> Result<()> {
        self.end_snapshot()?;
        // Both tables as they were at one instant.
        let transaction = self.connection.transaction()?;
        let mut packs = BTreeMap::<i64, (u64, u64)>::new();
        {
            let mut statement = transaction.prepare_cached("SELECT id, blocks FROM pack")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                packs.insert(row.get(0)?, (row.get(1)?, 0));
            }
            let mut statement = transaction.prepare_cached("SELECT number, pack FROM block")?;
            let mut rows = statement.query([])?;
            let mut numbers = Numbers::default();
            while let Some(row) = rows.next()? {
                let (number, pack): (u64, i64) = (row.get(0)?, row.get(1)?);
                if !numbers.insert(number) {
                    return Err(IndexError::Unusable(format!("two blocks have the number {number}")));
                }
                let Some((_, found)) = packs.get_mut(&pack) else {
                    return Err(IndexError::Unusable(format!("a block is in a pack {pack}, which is not there")));
                };
                *found += 1;
            }
        }
        transaction.commit()?;
        match packs.iter().find(|(_, (expected, found))| expected != found) {
            Some((pack, (expected, found))) => {
                let pack = PackId(*pack);
                Err(IndexError::Unusable(format!("it has {found} blocks of {pack} and had {expected}")))
            }
            None => Ok(()),
        }
    }

    /// All blocks, ascending by their hashes.
    pub(super) fn for_each_block(&self, mut each: impl FnMut(&[u8], Location)) -> Result<()> {
        let sql = "SELECT hash, number, pack, at, size FROM block";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let extent = Extent { at: row.get(3)?, size: row.get(4)? };
            let hash = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
            each(hash, Location { number: row.get(1)?, pack: PackId(row.get(2)?), extent });
        }
        Ok(())
    }

    /// Changes the database: all of it or nothing.
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&Change<'_>) -> Result<T>) -> Result<T> {
        self.end_snapshot()?;
        let log_before = self.log_head();
        let result = self.transact(change)?;
        // A log that has begun anew has cost an fsync already.
        if log_before == self.log_head() {
            self.shorten_log();
        }
        Ok(result)
    }

    fn transact<T>(&mut self, change: impl FnOnce(&Change<'_>) -> Result<T>) -> Result<T> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let to_change = Change { transaction };
        let result = change(&to_change)?;
        to_change.transaction.commit()?;
        Ok(result)
    }

    pub(super) fn cache_get(&mut self, key: &str) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT value FROM cache WHERE key = ?1";
        let value = self.connection.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?;
        if value.is_some() {
            // Whether the time of use is written is of no importance.
            let _ = self
                .connection
                .execute("UPDATE cache SET used = unixepoch() WHERE key = ?1 AND used < unixepoch() - 3600", [key]);
        }
        Ok(value)
    }

    pub(super) fn cache_put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        self.change(|change| {
            let transaction = &change.transaction;
            transaction.execute("DELETE FROM cache WHERE key = ?1", [key])?;
            if value.len() > CACHE_VALUE_BYTES_MAX {
                return Ok(());
            }
            let room = i64::try_from(CACHE_BYTES_MAX - value.len()).unwrap_or(0);
            let sql = "DELETE FROM cache WHERE key IN (SELECT key FROM (SELECT key, sum(length(value)) OVER
                (ORDER BY used DESC, key) AS total FROM cache) WHERE total > ?1)";
            transaction.execute(sql, [room])?;
            transaction.execute("INSERT INTO cache VALUES (?1, unixepoch(), ?2)", params![key, value])?;
            Ok(())
        })
    }

    /// Moves a long log into the database. Two or three fsyncs. The change is made whether or not there is room for that; if
    /// there is none, the log stays long until a later change.
    fn shorten_log(&self) {
        let is_long = fs::metadata(self.log_path()).is_ok_and(|log| log.len() > LOG_BYTES_MAX);
        if is_long && !self.keeps_log {
            let _ = self.connection.pragma(None, "wal_checkpoint", "PASSIVE", |_| Ok(()));
        }
    }

    /// The head of the log, which is another after the log has begun anew.
    fn log_head(&self) -> Option<[u8; 32]> {
        use io::Read;
        let mut head = [0; 32];
        fs::File::open(self.log_path()).and_then(|mut log| log.read_exact(&mut head)).ok().map(|()| head)
    }

    fn log_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push("-wal");
        path.into()
    }
}

/// A change of the database that is not yet committed.
pub(super) struct Change<'a> {
    transaction: Transaction<'a>,
}

impl Change<'_> {
    /// Adds a pack, with its blocks ascending by their keys; those that are there already stay where they are. Gives how many
    /// blocks were added, and their length in bytes.
    pub(super) fn add_pack(&self, pack: PackId, size_bytes: u64, blocks: &[(&Key, Extent)]) -> Result<(u64, u64)> {
        self.add_rows(pack, size_bytes, blocks, "INSERT OR IGNORE INTO block VALUES (?1, ?2, ?3, ?4, ?5)")
    }

    /// As [`Change::add_pack`], but blocks that are in one of the packs `gone` are now in this one.
    pub(super) fn adopt_pack(
        &self,
        pack: PackId,
        size_bytes: u64,
        blocks: &[(&Key, Extent)],
        gone: &[PackId],
    ) -> Result<()> {
        if gone.is_empty() {
            return self.add_pack(pack, size_bytes, blocks).map(drop);
        }
        self.transaction.execute_batch("CREATE TEMP TABLE gone (id INTEGER PRIMARY KEY) STRICT")?;
        for pack in gone {
            self.transaction.execute("INSERT INTO gone VALUES (?1)", [pack.0])?;
        }
        let sql = "INSERT INTO block VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (hash) DO UPDATE
            SET pack = excluded.pack, at = excluded.at, size = excluded.size WHERE pack IN (SELECT id FROM gone)";
        self.add_rows(pack, size_bytes, blocks, sql)?;
        Ok(self.transaction.execute_batch("DROP TABLE gone")?)
    }

    fn add_rows(&self, pack: PackId, size_bytes: u64, blocks: &[(&Key, Extent)], sql: &str) -> Result<(u64, u64)> {
        self.transaction.execute("INSERT OR IGNORE INTO pack VALUES (?1, ?2, 0)", params![pack.0, size_bytes])?;
        let first: u64 = self.transaction.query_row("SELECT next_number FROM counter", [], |row| row.get(0))?;
        let mut insert = self.transaction.prepare_cached(sql)?;
        let (mut added, mut added_bytes) = (0, 0);
        for (key, extent) in blocks {
            if insert.execute(params![key.as_bytes(), first + added, pack.0, extent.at, extent.size])? > 0 {
                added += 1;
                added_bytes += u64::from(extent.size);
            }
        }
        self.transaction.execute("UPDATE counter SET next_number = ?1", [first + added])?;
        self.transaction.execute("UPDATE pack SET blocks = blocks + ?2 WHERE id = ?1", params![pack.0, added])?;
        Ok((added, added_bytes))
    }

    /// Adds a pack with blocks that were copied there from other packs, which are then to be removed.
    pub(super) fn move_blocks(&self, pack: PackId, size_bytes: u64, blocks: &[(&Key, Extent)]) -> Result<()> {
        let count = blocks.len() as u64;
        self.transaction.execute("INSERT INTO pack VALUES (?1, ?2, ?3)", params![pack.0, size_bytes, count])?;
        let mut update = self.transaction.prepare_cached("UPDATE block SET pack = ?2, at = ?3 WHERE hash = ?1")?;
        for (key, extent) in blocks {
            update.execute(params![key.as_bytes(), pack.0, extent.at])?;
        }
        Ok(())
    }

    /// Removes packs, and all blocks that are in none. Gives how many those are.
    pub(super) fn remove_packs(&self, packs: &[PackId]) -> Result<u64> {
        for pack in packs {
            self.transaction.execute("DELETE FROM pack WHERE id = ?1", [pack.0])?;
        }
        let sql = "DELETE FROM block WHERE pack NOT IN (SELECT id FROM pack)";
        Ok(self.transaction.execute(sql, [])? as u64)
    }

    /// Forgets what is kept of work done before: it may rest on blocks that turned out to be lost.
    pub(super) fn clear_cache(&self) -> Result<()> {
        self.transaction.execute("DELETE FROM cache", [])?;
        Ok(())
    }

    /// Removes the blocks that are not to be kept.
    pub(super) fn retain_blocks(&self, is_kept: impl Fn(u64) -> bool) -> Result<()> {
        /// Hashes that are gathered before their blocks are removed.
        const BATCH: usize = 4096;
        let mut last = Vec::new();
        let mut of_packs = BTreeMap::<i64, u64>::new();
        loop {
            let sql = "SELECT hash, number, pack FROM block WHERE hash > ?1 ORDER BY hash";
            let mut statement = self.transaction.prepare_cached(sql)?;
            let mut rows = statement.query([&last])?;
            let mut removed = Vec::with_capacity(BATCH);
            while let Some(row) = rows.next()? {
                if !is_kept(row.get(1)?) {
                    removed.push(row.get::<_, Vec<u8>>(0)?);
                    *of_packs.entry(row.get(2)?).or_default() += 1;
                    if removed.len() == BATCH {
                        break;
                    }
                }
            }
            drop(rows);
            let mut delete = self.transaction.prepare_cached("DELETE FROM block WHERE hash = ?1")?;
            for hash in &removed {
                delete.execute([hash])?;
            }
            if removed.len() < BATCH {
                break;
            }
            last = removed.pop().unwrap_or_default();
        }
        for (pack, blocks) in of_packs {
            self.transaction.execute("UPDATE pack SET blocks = blocks - ?2 WHERE id = ?1", params![pack, blocks])?;
        }
        Ok(())
    }
}

fn location(row: &rusqlite::Row<'_>) -> rusqlite::Result<Location> {
    let extent = Extent { at: row.get(2)?, size: row.get(3)? };
    Ok(Location { number: row.get(0)?, pack: PackId(row.get(1)?), extent })
}

fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    Ok(Connection::open_with_flags(path, flags)?)
}

/// Settings of every connection.
fn prepare(connection: &Connection, synchronous: &str) -> Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // To close the last connection would cost two fsyncs.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    // Damage is found where it would else be followed.
    connection.pragma_update(None, "cell_size_check", true)?;
    // The log is as long as what is in it.
    connection.pragma_update_and_check(None, "journal_size_limit", 0, |_| Ok(()))?;
    Ok(())
}

/// Device and inode of a file; `None` if it is not there.
fn file_of(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
