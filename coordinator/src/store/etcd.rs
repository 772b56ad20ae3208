//! The journal in an etcd cluster, written by the coordinator that leads. Keys below the prefix:
//!
//! | key | value |
//! |---|---|
//! | `leader` | who leads (`election.rs`), gone when its lease ends |
//! | `state/KEY` | the pairs of [`super`] |
//! | `redo/0000`, `redo/0001`, ... | the writes of one large save, in pieces |
//! | `redo/head` | how many pieces there are; it makes them count |
//!
//! **One leader writes.** Every transaction compares the create revision of `leader` with the one of our own term. A
//! write of a former leader, however late it arrives, changes nothing; one of our own whose answer was lost ends our
//! term, so it can never overtake a later one.
//!
//! **A save is whole or not there**, although etcd takes at most 128 operations and 1.5 MiB at once. A save that fits is
//! one transaction. A larger one is first written down under `redo/`; the head comes with the last piece, and that
//! transaction is the save. Then the writes go to their places, and the last of these transactions removes `redo/`.
//! Cut before the head: nothing but pieces that nobody reads. Cut after it: [`Store::load`] finds the head, reads the
//! journal with these writes laid over it, and finishes them. Putting a value and deleting a key may be done twice, and
//! nothing else writes meanwhile, so it does not matter how often or where it is cut. Whatever the kinds of records and
//! however they depend on each other, a reader sees all of a save or none of it.
//!
//! Never compacts: the cluster may serve others, and its history is its owner's affair.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, GetResponse, Identity,
    KvClient, TlsOptions, Txn, TxnOp,
};
use serde::{Deserialize, Serialize};
use tonic::Code as GrpcCode;

use super::{Store, StoreError, Write};
use crate::config::{EtcdAccess, EtcdLocation};

/// etcd's default for operations of one transaction.
const OPERATIONS_MOST: usize = 128;

/// Keys and values of one transaction; etcd's default for a whole request is 1.5 MiB.
const BYTES_MOST: usize = 1_400_000;

/// What an operation takes in a request besides key and value.
const OVERHEAD: usize = 64;

/// Keys of one page of a read.
const PAGE_KEYS: i64 = 1000;

/// Largest page that is taken; a larger one is asked for with fewer keys.
const PAGE_BYTES: usize = 32 << 20;

/// How often a read is begun again because the cluster's owner compacted the revision being read.
const READS_MOST: u32 = 10;

/// How long a request may take; leadership may end earlier.
const PATIENCE: Duration = Duration::from_secs(5);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A silent member is noticed after twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

const HEAD: &str = "head";

const REDO_FORMAT: u32 = 1;

/// The keys below one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(location: &EtcdLocation) -> Self {
        Self { prefix: format!("{}/", location.prefix) }
    }

    pub(crate) fn leader(&self) -> String {
        format!("{}leader", self.prefix)
    }

    fn state(&self, key: &str) -> String {
        format!("{}state/{key}", self.prefix)
    }

    fn redo(&self, name: &str) -> String {
        format!("{}redo/{name}", self.prefix)
    }

    fn operation(&self, operation: Operation) -> TxnOp {
        match operation {
            Operation::Put(key, value) => TxnOp::put(self.state(&key), value, None),
            Operation::Delete(key) => TxnOp::delete(self.state(&key), None),
            Operation::PutRedo(name, value) => TxnOp::put(self.redo(&name), value, None),
            Operation::ClearRedo => TxnOp::delete(self.redo(""), Some(DeleteOptions::new().with_prefix())),
        }
    }
}

/// A connection to one member. Nothing is sent yet.
pub(crate) async fn connect(endpoint: &str, access: &EtcdAccess) -> Result<Client, StoreError> {
    let mut options = etcd_client::ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE);
    let read = |path: &Path| {
        let unreadable = |error: std::io::Error| format!("{}: {error}", path.display());
        std::fs::read_to_string(path).map_err(unreadable).map_err(|error| StoreError::Etcd {
            operation: "let us in, because a file cannot be read",
            source: error.into(),
        })
    };
    let mut scheme = "http";
    if let Some(ca) = &access.tls.ca {
        scheme = "https";
        let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca)?));
        if let (Some(cert), Some(key)) = (&access.tls.cert, &access.tls.key) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        options = options.with_tls(tls);
    }
    if let Some((user, password_file)) = &access.user {
        options = options.with_user(user, read(password_file)?.trim_end_matches(['\n', '\r']));
    }
    let client = Client::connect([format!("{scheme}://{endpoint}")], Some(options)).await;
    client.map_err(failed("connect"))
}

/// The same for every failed request.
pub(crate) fn failed(operation: &'static str) -> impl Fn(Error) -> StoreError {
    move |error| StoreError::Etcd { operation, source: error.into() }
}

/// The answer to a request, waited for no longer than is useful.
pub(crate) async fn answered<T>(
    operation: &'static str,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(failed(operation)),
        Err(elapsed) => Err(StoreError::Etcd { operation, source: elapsed.into() }),
    }
}

/// The journal during one term of leadership.
pub struct EtcdStore {
    kv: KvClient,
    keys: Keys,
    /// Create revision of the key `leader`: no two terms have the same.
    term: i64,
}

impl EtcdStore {
    pub(crate) fn new(client: &Client, keys: Keys, term: i64) -> Self {
        Self { kv: client.kv_client().max_decoding_message_size(PAGE_BYTES), keys, term }
    }

    /// Carries out one transaction, or none of it when another coordinator leads.
    async fn commit(&self, operations: Vec<Operation>) -> Result<(), StoreError> {
        let leads = Compare::create_revision(self.keys.leader(), CompareOp::Equal, self.term);
        let operations: Vec<TxnOp> =
            operations.into_iter().map(|operation| self.keys.operation(operation)).collect();
        let transaction = Txn::new().when([leads]).and_then(operations);
        let mut kv = self.kv.clone();
        let answer = answered("write", kv.txn(transaction)).await?;
        if answer.succeeded() { Ok(()) } else { Err(StoreError::Deposed) }
    }

    /// Every pair below the prefix at one revision.
    async fn read(&self) -> Result<Pairs, StoreError> {
        for _ in 0..READS_MOST {
            match self.read_at_one_revision().await {
                Err(StoreError::Etcd { source, .. }) if is_compacted(source.as_ref()) => {}
                other => return other,
            }
        }
        let source = "the cluster is compacted faster than it can be read".into();
        Err(StoreError::Etcd { operation: "read", source })
    }

    async fn read_at_one_revision(&self) -> Result<Pairs, StoreError> {
        let mut pairs = Vec::new();
        let end = end_of(&self.keys.prefix);
        let mut from = self.keys.prefix.clone().into_bytes();
        let mut revision = 0; // the newest
        let mut limit = PAGE_KEYS;
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_revision(revision).with_limit(limit);
            let mut kv = self.kv.clone();
            let mut page: GetResponse = match answered("read", kv.get(from.clone(), Some(options))).await {
                Err(StoreError::Etcd { source, .. }) if limit > 1 && is_too_large(source.as_ref()) => {
                    limit = (limit / 4).max(1);
                    continue;
                }
                other => other?,
            };
            if revision == 0 {
                revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
            }
            let more = page.more();
            for pair in page.take_kvs() {
                let (key, value) = pair.into_key_value();
                from.clone_from(&key);
                let name = key.strip_prefix(self.keys.prefix.as_bytes()).unwrap_or_default();
                pairs.push((String::from_utf8_lossy(name).into_owned(), value));
            }
            if !more {
                return Ok(pairs);
            }
            from.push(0); // right after the last key
        }
    }
}

impl Store for EtcdStore {
    async fn load(&self) -> Result<Pairs, StoreError> {
        let Stored { mut state, redo } = sort(self.read().await?)?;
        if let Some(writes) = redo {
            for transaction in replay(writes.clone()) {
                self.commit(transaction).await?;
            }
            lay_over(&mut state, writes);
        }
        Ok(state.into_iter().collect())
    }

    async fn save(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        for transaction in transactions(writes)? {
            self.commit(transaction).await?;
        }
        Ok(())
    }
}

type Pairs = Vec<(String, Vec<u8>)>;

/// One operation of a transaction, without the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Operation {
    Put(String, Vec<u8>),
    Delete(String),
    PutRedo(String, Vec<u8>),
    ClearRedo,
}

impl Operation {
    fn bytes(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Put(key, value) | Self::PutRedo(key, value) => key.len() + value.len(),
                Self::Delete(key) => key.len(),
                Self::ClearRedo => 0,
            }
    }
}

impl From<Write> for Operation {
    fn from(Write { key, value }: Write) -> Self {
        match value {
            Some(value) => Self::Put(key, value),
            None => Self::Delete(key),
        }
    }
}

/// A save as transactions, in their order.
fn transactions(writes: Vec<Write>) -> Result<Vec<Vec<Operation>>, StoreError> {
    for write in &writes {
        let bytes = Operation::from(write.clone()).bytes();
        if bytes > BYTES_MOST {
            return Err(StoreError::TooLarge { key: write.key.clone(), bytes, most: BYTES_MOST });
        }
    }
    let mut small = pack(writes.iter().cloned().map(Operation::from));
    if small.len() <= 1 {
        return Ok(small);
    }
    small.clear();
    let log = frame(&writes);
    let pieces = log.chunks(BYTES_MOST - 2 * OVERHEAD - HEAD.len() - 64);
    let count = pieces.len();
    for (number, piece) in pieces.enumerate() {
        small.push(vec![Operation::PutRedo(format!("{number:04}"), piece.to_vec())]);
    }
    let head = serde_json::to_vec(&Head { format: REDO_FORMAT, pieces: count })
        .expect("a head holds only what JSON can hold");
    if let Some(last) = small.last_mut() {
        last.push(Operation::PutRedo(HEAD.to_owned(), head));
    }
    small.extend(replay(writes));
    Ok(small)
}

/// Brings the writes of a redo log to their places, and ends it.
fn replay(writes: Vec<Write>) -> Vec<Vec<Operation>> {
    pack(writes.into_iter().map(Operation::from).chain([Operation::ClearRedo]))
}

/// As few transactions as the limits allow, in the given order.
fn pack(operations: impl Iterator<Item = Operation>) -> Vec<Vec<Operation>> {
    let mut packed: Vec<Vec<Operation>> = Vec::new();
    let mut bytes = 0;
    for operation in operations {
        let more = operation.bytes();
        match packed.last_mut() {
            Some(last) if last.len() < OPERATIONS_MOST && bytes + more <= BYTES_MOST => {
                bytes += more;
                last.push(operation);
            }
            _ => {
                bytes = more;
                packed.push(vec![operation]);
            }
        }
    }
    packed
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    format: u32,
    pieces: usize,
}

/// What was read, by its part.
struct Stored {
    state: BTreeMap<String, Vec<u8>>,
    /// The writes of a save that is there, and not yet all in their places.
    redo: Option<Vec<Write>>,
}

/// Keys of other clusters may lie deeper below the same prefix; they are none of ours.
fn sort(pairs: Pairs) -> Result<Stored, StoreError> {
    let mut state = BTreeMap::new();
    let (mut head, mut pieces) = (None, BTreeMap::new());
    for (key, value) in pairs {
        match key.split_once('/') {
            Some(("state", key)) => {
                state.insert(key.to_owned(), value);
            }
            Some(("redo", HEAD)) => head = Some(value),
            Some(("redo", number)) => {
                pieces.insert(number.to_owned(), value);
            }
            _ => {}
        }
    }
    let Some(head) = head else { return Ok(Stored { state, redo: None }) };
    let key = format!("redo/{HEAD}");
    let head: Head =
        serde_json::from_slice(&head).map_err(|source| StoreError::Corrupt { key: key.clone(), source })?;
    if head.format > REDO_FORMAT {
        return Err(StoreError::Format { found: head.format });
    }
    // Pieces beyond these are left from a save that was cut before its head.
    let log: Vec<u8> = pieces.into_values().take(head.pieces).flatten().collect();
    let redo = unframe(&log).ok_or(StoreError::UnknownKey { key })?;
    Ok(Stored { state, redo: Some(redo) })
}

fn lay_over(state: &mut BTreeMap<String, Vec<u8>>, writes: Vec<Write>) {
    for Write { key, value } in writes {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
}

/// Writes one after another: length and bytes of the key, 1 and length and bytes of the value, or 0 for none. Lengths
/// are four bytes, the smallest first.
fn frame(writes: &[Write]) -> Vec<u8> {
    let mut log = Vec::new();
    let push = |bytes: &[u8], log: &mut Vec<u8>| {
        let length = u32::try_from(bytes.len()).expect("no key or value exceeds a transaction");
        log.extend_from_slice(&length.to_le_bytes());
        log.extend_from_slice(bytes);
    };
    for Write { key, value } in writes {
        push(key.as_bytes(), &mut log);
        log.push(u8::from(value.is_some()));
        if let Some(value) = value {
            push(value, &mut log);
        }
    }
    log
}

/// `None` when it is not what [`frame`] makes.
fn unframe(mut log: &[u8]) -> Option<Vec<Write>> {
    fn take<'a>(log: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, rest) = log.split_first_chunk::<4>()?;
        let (bytes, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        *log = rest;
        Some(bytes)
    }
    let mut writes = Vec::new();
    while !log.is_empty() {
        let key = String::from_utf8(take(&mut log)?.to_vec()).ok()?;
        let (has_value, rest) = log.split_first()?;
        log = rest;
        let value = match has_value {
            0 => None,
            1 => Some(take(&mut log)?.to_vec()),
            _ => return None,
        };
        writes.push(Write { key, value });
    }
    Some(writes)
}

/// The first key behind all that begin with `prefix`, which ends with a slash.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn status_of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a tonic::Status> {
    match error.downcast_ref::<Error>() {
        Some(Error::GRpcStatus(status)) => Some(status),
        _ => None,
    }
}

/// The revision of the first page is not kept any more.
fn is_compacted(error: &(dyn std::error::Error + 'static)) -> bool {
    status_of(error).is_some_and(|status| status.message().contains("has been compacted"))
}

/// The page does not fit into one message.
fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    status_of(error).is_some_and(|status| {
        matches!(status.code(), GrpcCode::OutOfRange | GrpcCode::ResourceExhausted)
            && status.message().contains("too large")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(number: usize, bytes: usize) -> Write {
        Write { key: format!("n/{number:06}"), value: Some(vec![b'x'; bytes]) }
    }

    fn delete(number: usize) -> Write {
        Write { value: None, ..put(number, 0) }
    }

    /// What etcd does with a transaction.
    fn carry_out(pairs: &mut BTreeMap<String, Vec<u8>>, transaction: &[Operation]) {
        assert!(transaction.len() <= OPERATIONS_MOST);
        assert!(transaction.iter().map(Operation::bytes).sum::<usize>() <= BYTES_MOST);
        for operation in transaction.iter().cloned() {
            match operation {
                Operation::Put(key, value) => drop(pairs.insert(format!("state/{key}"), value)),
                Operation::Delete(key) => drop(pairs.remove(&format!("state/{key}"))),
                Operation::PutRedo(name, value) => drop(pairs.insert(format!("redo/{name}"), value)),
                Operation::ClearRedo => pairs.retain(|key, _| !key.starts_with("redo/")),
            }
        }
    }

    /// What a reader sees, and what is left when it has finished what it found.
    fn read(mut pairs: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
        let Stored { mut state, redo } = sort(pairs.clone().into_iter().collect()).unwrap();
        if let Some(writes) = redo {
            for (done, transaction) in replay(writes.clone()).iter().enumerate() {
                let seen_again = sort(pairs.clone().into_iter().collect()).unwrap().redo;
                assert_eq!(seen_again.as_ref(), Some(&writes), "cut again after {done}");
                carry_out(&mut pairs, transaction);
            }
            lay_over(&mut state, writes);
            let settled = sort(pairs.into_iter().collect()).unwrap();
            assert_eq!((settled.state, settled.redo), (state.clone(), None));
        }
        state
    }

    /// Cuts the save after each of its transactions; returns how many there are.
    fn whole_or_not_there(before: &BTreeMap<String, Vec<u8>>, writes: &[Write]) -> usize {
        let mut after = read(before.clone());
        lay_over(&mut after, writes.to_vec());
        let all = transactions(writes.to_vec()).unwrap();
        let mut pairs = before.clone();
        let mut is_saved = false;
        for (done, transaction) in all.iter().enumerate() {
            let seen = read(pairs.clone());
            assert!(seen == after || !is_saved && seen == read(before.clone()), "cut after {done}");
            is_saved = seen == after;
            carry_out(&mut pairs, transaction);
        }
        assert_eq!(read(pairs.clone()), after);
        assert!(pairs.keys().all(|key| key.starts_with("state/")), "nothing else is left");
        all.len()
    }

    fn some_state() -> BTreeMap<String, Vec<u8>> {
        (0..500).map(|number| (format!("state/n/{number:06}"), b"before".to_vec())).collect()
    }

    #[test]
    fn a_small_save_is_one_transaction() {
        let writes: Vec<Write> = (0..128).map(|number| put(number, 100)).collect();
        assert_eq!(whole_or_not_there(&some_state(), &writes), 1);
        assert_eq!(transactions(Vec::new()).unwrap().len(), 0);
    }

    #[test]
    fn a_save_of_many_pairs_is_whole_wherever_it_is_cut() {
        let writes: Vec<Write> =
            (0..1000).map(|number| if number % 3 == 0 { delete(number) } else { put(number, 300) }).collect();
        assert_eq!(whole_or_not_there(&some_state(), &writes), 1 + 8);
    }

    #[test]
    fn a_save_of_many_bytes_is_whole_wherever_it_is_cut() {
        let writes: Vec<Write> = (0..9).map(|number| put(number, 900_000)).collect();
        assert_eq!(whole_or_not_there(&some_state(), &writes), 6 + 9);
    }

    #[test]
    fn pieces_of_an_older_save_that_was_cut_are_not_read() {
        let mut pairs = some_state();
        let large: Vec<Write> = (0..9).map(|number| put(number, 900_000)).collect();
        for transaction in &transactions(large).unwrap()[..5] {
            carry_out(&mut pairs, transaction);
        }
        let writes: Vec<Write> = (0..200).map(|number| put(number, 10)).collect();
        whole_or_not_there(&pairs, &writes);
    }

    #[test]
    fn a_value_that_etcd_would_not_take_is_told_before_anything_is_written() {
        let refused = transactions(vec![put(0, 10), put(1, BYTES_MOST)]);
        assert!(matches!(refused, Err(StoreError::TooLarge { key, .. }) if key == "n/000001"));
    }

    #[test]
    fn a_damaged_redo_log_is_refused() {
        let head = |pieces| serde_json::to_vec(&Head { format: REDO_FORMAT, pieces }).unwrap();
        let log = frame(&[put(0, 10)]);
        let cut = vec![("redo/0000".to_owned(), log[..9].to_vec()), ("redo/head".to_owned(), head(1))];
        assert!(matches!(sort(cut), Err(StoreError::UnknownKey { .. })));
        let whole = vec![("redo/0000".to_owned(), log), ("redo/head".to_owned(), head(1))];
        assert_eq!(sort(whole).unwrap().redo, Some(vec![put(0, 10)]));
    }

    #[tokio::test]
    async fn a_revision_compacted_away_while_it_is_read_is_told_from_other_faults() {
        let etcd = crate::testing::Etcd::start().await;
        let mut client = etcd.client().await;
        for value in ["1", "2", "3"] {
            client.put("k", value, None).await.unwrap();
        }
        client.compact(3, None).await.unwrap();
        let at_an_old_revision = GetOptions::new().with_revision(2);
        let error = client.get("k", Some(at_an_old_revision)).await.unwrap_err();
        assert!(is_compacted(&error) && !is_too_large(&error), "{error}");
        let not_yet = client.get("k", Some(GetOptions::new().with_revision(1000))).await.unwrap_err();
        assert!(!is_compacted(&not_yet), "{not_yet}");
    }
}
