//! From the text of a lock to its meaning.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    Digest, FORMAT, GuestLock, ImageLock, Inputs, LOCK_FILE_NAME, Lock, LockedFile, TOOLCHAIN_BYTES_MAX, Toolchain,
};
use crate::dag::Cid;
use crate::escape;
use crate::wetfile::diagnostic::quoted;
use crate::wetfile::name::{GuestName, ImageName};
use crate::wetfile::path::{COMPONENTS_MAX, ImagePath, PATH_BYTES_MAX};
use crate::wetfile::project::Base;
use crate::wetfile::syntax;

/// Why a text is not a lock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A newer `ww` wrote it.
    #[error(
        "it has format version {found}, which needs ww {}; this is ww {}, which reads version {FORMAT}",
        escape::text(.needs), env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// Its format version.
        found: u64,
        /// Which `ww` reads it, by its own words.
        needs: String,
    },
    /// Two branches changed it, and nobody has said which one counts.
    #[error("line {line} has the mark of a merge conflict: take either side, then `ww build` puts it right")]
    Conflict {
        /// The line of the mark.
        line: usize,
    },
    /// Something in it means nothing.
    #[error("line {line}: {problem}")]
    Malformed {
        /// Where, from 1.
        line: usize,
        /// What. Ready to be shown.
        problem: String,
    },
}

impl ParseError {
    pub(super) fn not_utf8() -> Self {
        Self::Malformed { line: 1, problem: "the file is not UTF-8".to_owned() }
    }
}

/// Reads the text of a lock.
///
/// # Errors
///
/// [`ParseError`] for whatever [`Lock::render`] would not have written, spelling aside. It comes from anybody, so
/// nothing in it is believed before it is checked.
pub fn parse(text: &str) -> Result<Lock, ParseError> {
    let reader = Reader { text };
    if let Some(line) = text.lines().position(|line| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ")) {
        return Err(ParseError::Conflict { line: line + 1 });
    }
    if let Some(place) = syntax::too_deep(text) {
        return Err(reader.error(&place, "it is nested too deep"));
    }
    let table = DeTable::parse(text).map_err(|error| {
        reader.error(&error.span().unwrap_or(0..0), &escape::text(error.message().lines().next().unwrap_or_default()))
    })?;
    reader.lock(table.get_ref())
}

/// A value with its place.
type Value<'t> = Spanned<DeValue<'t>>;

/// A key with its place.
type Key<'t> = Spanned<Cow<'t, str>>;

struct Reader<'t> {
    text: &'t str,
}

impl Reader<'_> {
    fn error(&self, place: &Range<usize>, problem: &str) -> ParseError {
        let before = self.text.get(..place.start).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        ParseError::Malformed { line, problem: problem.to_owned() }
    }

    fn lock(&self, table: &DeTable<'_>) -> Result<Lock, ParseError> {
        self.check_version(table)?;
        self.check_keys(table, &["version", "ww", "guest", "image"])?;
        let mut lock = Lock::default();
        for (key, value) in self.entries(table, "guest")? {
            let name = GuestName::new(key.get_ref()).map_err(|error| self.error(&key.span(), &error.to_string()))?;
            lock.guests.insert(name, self.guest(self.table(value)?, &value.span())?);
        }
        for (key, value) in self.entries(table, "image")? {
            let name = ImageName::new(key.get_ref()).map_err(|error| self.error(&key.span(), &error.to_string()))?;
            lock.images.insert(name, self.image(self.table(value)?, &value.span())?);
        }
        Ok(lock)
    }

    fn check_version(&self, table: &DeTable<'_>) -> Result<(), ParseError> {
        let Some(version) = table.get("version") else {
            return Err(self.error(&(0..0), "the key `version` is missing"));
        };
        let number = match version.get_ref() {
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        };
        match number {
            Some(FORMAT) => Ok(()),
            Some(found) if found > FORMAT => {
                let needs = table.get("ww").and_then(|needs| needs.get_ref().as_str());
                let needs = needs.filter(|needs| needs.len() < 64).unwrap_or("of a later version");
                Err(ParseError::Newer { found, needs: needs.to_owned() })
            }
            _ => Err(self.error(&version.span(), &format!("`version` is none that {LOCK_FILE_NAME} ever had"))),
        }
    }

    fn guest(&self, table: &DeTable<'_>, place: &Range<usize>) -> Result<GuestLock, ParseError> {
        self.check_keys(table, &["recipe", "environment", "inputs", "embeds", "outputs"])?;
        let recipe = self.required(table, "recipe", place)?;
        let environment = table.get("environment").map(|value| self.digest(value)).transpose()?;
        let embeds = self.map(table, "embeds", |key| GuestName::new(key).ok(), |value| self.digest(value))?;
        let roots = self.map(table, "inputs", root, |value| self.digest(value))?;
        let outputs = self.map(table, "outputs", Toolchain::new, |value| self.digest(value))?;
        Ok(GuestLock { inputs: Inputs { recipe: self.digest(recipe)?, environment, roots, embeds }, outputs })
    }

    fn image(&self, table: &DeTable<'_>, place: &Range<usize>) -> Result<ImageLock, ParseError> {
        self.check_keys(table, &["profile", "base", "guests", "sources", "contents", "files", "cids"])?;
        let profile = self.required(table, "profile", place)?;
        let name = self.string(profile)?;
        let profile = name
            .parse()
            .map_err(|_| self.error(&profile.span(), &format!("{} is no profile that ww knows", quoted(name))))?;
        let image_path = |key: &str| ImagePath::new(key).ok().filter(|path| path.as_str() == key);
        Ok(ImageLock {
            profile,
            guests: self.map(table, "guests", |key| GuestName::new(key).ok(), |value| self.digest(value))?,
            sources: self.map(table, "sources", image_path, |value| self.cid(value))?,
            contents: self.map(table, "contents", image_path, |value| self.cid(value))?,
            base: table.get("base").map(|value| self.base(value)).transpose()?,
            files: self.map(table, "files", path, |value| self.file(value))?,
            cids: self.map(table, "cids", Toolchain::new, |value| self.cid(value))?,
        })
    }

    fn base(&self, value: &Value<'_>) -> Result<Base, ParseError> {
        let table = self.table(value)?;
        self.check_keys(table, &["image", "cid"])?;
        match (table.get("image"), table.get("cid")) {
            (Some(image), None) => {
                let name = ImageName::new(self.string(image)?);
                name.map(Base::Image).map_err(|error| self.error(&image.span(), &error.to_string()))
            }
            (None, Some(cid)) => self.cid(cid).map(Base::Content),
            _ => Err(self.error(&value.span(), "one of `image` and `cid` is needed here")),
        }
    }

    fn file(&self, value: &Value<'_>) -> Result<LockedFile, ParseError> {
        let DeValue::Table(table) = value.get_ref() else { return self.cid(value).map(LockedFile::Copied) };
        self.check_keys(table, &["guest"])?;
        let guest = self.required(table, "guest", &value.span())?;
        let name = GuestName::new(self.string(guest)?);
        name.map(LockedFile::Guest).map_err(|error| self.error(&guest.span(), &error.to_string()))
    }

    fn check_keys(&self, table: &DeTable<'_>, known: &[&str]) -> Result<(), ParseError> {
        match table.keys().find(|key| !known.contains(&key.get_ref().as_ref())) {
            Some(key) => Err(self.error(&key.span(), &format!("the key {} means nothing here", quoted(key.get_ref())))),
            None => Ok(()),
        }
    }

    fn required<'v, 't>(
        &self,
        table: &'v DeTable<'t>,
        key: &str,
        place: &Range<usize>,
    ) -> Result<&'v Value<'t>, ParseError> {
        table.get(key).ok_or_else(|| self.error(place, &format!("the key `{key}` is missing")))
    }

    fn string<'v>(&self, value: &'v Value<'_>) -> Result<&'v str, ParseError> {
        value.get_ref().as_str().ok_or_else(|| self.error(&value.span(), "a string is needed here"))
    }

    fn table<'v, 't>(&self, value: &'v Value<'t>) -> Result<&'v DeTable<'t>, ParseError> {
        value.get_ref().as_table().ok_or_else(|| self.error(&value.span(), "a table is needed here"))
    }

    fn digest(&self, value: &Value<'_>) -> Result<Digest, ParseError> {
        let digest = self.string(value)?.parse();
        digest.map_err(|error: super::DigestError| self.error(&value.span(), &error.to_string()))
    }

    fn cid(&self, value: &Value<'_>) -> Result<Cid, ParseError> {
        let text = self.string(value)?;
        let cid = text.parse::<Cid>().ok().filter(|cid| cid.to_string() == text);
        cid.ok_or_else(|| self.error(&value.span(), "not a CID in its usual form"))
    }

    /// The entries of a table that may be absent.
    fn entries<'v, 't>(
        &self,
        table: &'v DeTable<'t>,
        key: &str,
    ) -> Result<Vec<(&'v Key<'t>, &'v Value<'t>)>, ParseError> {
        match table.get(key) {
            None => Ok(Vec::new()),
            Some(value) => Ok(self.table(value)?.iter().collect()),
        }
    }

    /// A table that may be absent, as a map.
    fn map<K: Ord, V>(
        &self,
        table: &DeTable<'_>,
        key: &str,
        read_key: impl Fn(&str) -> Option<K>,
        read_value: impl Fn(&Value<'_>) -> Result<V, ParseError>,
    ) -> Result<BTreeMap<K, V>, ParseError> {
        let mut map = BTreeMap::new();
        for (name, value) in self.entries(table, key)? {
            let Some(key) = read_key(name.get_ref()) else {
                let problem = format!("{} is not allowed as a key of `{key}`", quoted(name.get_ref()));
                return Err(self.error(&name.span(), &problem));
            };
            map.insert(key, read_value(value)?);
        }
        Ok(map)
    }
}

/// A path in an image: like an [`ImagePath`], but names of files may have control characters.
fn path(key: &str) -> Option<String> {
    let components = || key.split('/');
    let is_path = key.len() <= PATH_BYTES_MAX
        && components().count() <= COMPONENTS_MAX
        && !key.contains('\0')
        && components().all(|name| !matches!(name, "" | "." | ".."));
    is_path.then(|| key.to_owned())
}

/// Something that a guest's build reads; what it is, is for others to find out.
fn root(key: &str) -> Option<String> {
    (1..=TOOLCHAIN_BYTES_MAX).contains(&key.len()).then(|| key.to_owned())
}
