//! Floor (a): the least a client must do to have the rows. A blocking connection of its own speaks just enough of the
//! MySQL protocol, and the rows are walked in the receive buffer, cell by cell, without a copy. The same walk, not
//! measured, hashes the rows in the stand-in's canonical form and writes them as CSV. No password, no TLS, no packet of
//! 16 MiB: the servers are our own.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

/// Rows in flight; a longer packet makes it grow.
const BUFFER_BYTES: usize = 256 << 10;

const HEADER: usize = 4;

/// Protocol 4.1, authentication plugins, a database at the start; no EOF deprecation.
const CAPABILITIES: u32 = 0x0000_0001 | 0x0000_0008 | 0x0000_0200 | 0x0000_8000 | 0x0008_0000;
const UTF8MB4: u8 = 45;
const QUERY: u8 = 3;

/// Read the results of queries, one connection each, at the same time
#[derive(Debug, Args)]
pub(crate) struct RawArgs {
    #[arg(long)]
    port: u16,
    #[arg(long, default_value = "bench")]
    user: String,
    #[arg(long, default_value = "bench")]
    database: String,
    /// Hash the rows
    #[arg(long)]
    hash: bool,
    /// Write the rows to this file as CSV with \x01 between cells and \x02 after rows
    #[arg(long)]
    csv: Option<PathBuf>,
    #[arg(required = true)]
    sql: Vec<String>,
}

/// What was found in the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    rows: u64,
    /// Bytes in cells.
    text: u64,
    nulls: u64,
    /// Bytes and hash of the canonical form, where asked for.
    bytes: u64,
    hash: u64,
}

/// Reads and prints one line of JSON.
pub(crate) fn run(args: &RawArgs) -> Result<()> {
    let total = if args.hash || args.csv.is_some() { hashed(args)? } else { counted(args)? };
    println!("{}", total.to_json());
    Ok(())
}

impl Tally {
    fn to_json(self) -> Value {
        json!({
            "rows": self.rows, "text": self.text, "nulls": self.nulls, "bytes": self.bytes,
            "hash": format!("{:016x}", self.hash),
        })
    }

    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.text += other.text;
        self.nulls += other.nulls;
        self.bytes += other.bytes;
        self.hash = self.hash.wrapping_add(other.hash);
    }
}

fn counted(args: &RawArgs) -> Result<Tally> {
    std::thread::scope(|scope| {
        let read = |sql: &str| -> Result<Tally> {
            let mut tally = Tally::default();
            Connection::open(args)?.query(sql, |row| {
                tally.rows += 1;
                for cell in Cells(row) {
                    match cell {
                        Some(cell) => tally.text += cell.len() as u64,
                        None => tally.nulls += 1,
                    }
                }
                Ok(())
            })?;
            Ok(tally)
        };
        let readers: Vec<_> = args.sql.iter().map(|sql| scope.spawn(move || read(sql))).collect();
        let mut total = Tally::default();
        for reader in readers {
            match reader.join() {
                Ok(tally) => total.add(tally?),
                Err(_) => bail!("a reader stopped"),
            }
        }
        Ok(total)
    })
}

fn hashed(args: &RawArgs) -> Result<Tally> {
    let mut csv = match &args.csv {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Some(BufWriter::with_capacity(1 << 20, file))
        }
        None => None,
    };
    let (mut tally, mut text) = (Tally::default(), Vec::new());
    for sql in &args.sql {
        Connection::open(args)?.query(sql, |row| {
            let cells: Vec<Option<&[u8]>> = Cells(row).collect();
            canonical(&cells, &mut text);
            tally.add(Tally {
                rows: 1,
                text: cells.iter().flatten().map(|cell| cell.len() as u64).sum(),
                nulls: cells.iter().filter(|cell| cell.is_none()).count() as u64,
                bytes: text.len() as u64,
                hash: xxh3_64(&text),
            });
            if let Some(csv) = &mut csv {
                ensure!(!text.contains(&2), "a row holds a delimiter or a text that reads as NULL");
                csv.write_all(&text)?;
                csv.write_all(&[2])?;
            }
            Ok(())
        })?;
    }
    if let Some(csv) = &mut csv {
        csv.flush()?;
    }
    Ok(tally)
}

/// Cells with 0x01 between them, NULL as `\N`; in a cell 0x01 and 0x02 are 0x02 `a` and 0x02 `b`, and the text `\N` is
/// 0x02 `N`. It is the form that the stand-in hashes when it only counts.
fn canonical(cells: &[Option<&[u8]>], text: &mut Vec<u8>) {
    text.clear();
    for (place, cell) in cells.iter().enumerate() {
        if place > 0 {
            text.push(1);
        }
        match cell {
            None => text.extend_from_slice(b"\\N"),
            Some(b"\\N") => text.extend_from_slice(b"\x02N"),
            Some(cell) => cell.iter().for_each(|byte| match byte {
                1 => text.extend_from_slice(b"\x02a"),
                2 => text.extend_from_slice(b"\x02b"),
                byte => text.push(*byte),
            }),
        }
    }
}

/// The cells of a text row; a damaged row ends early.
struct Cells<'a>(&'a [u8]);

impl<'a> Iterator for Cells<'a> {
    type Item = Option<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (first, rest) = self.0.split_first()?;
        let (length, rest) = match first {
            0xfb => {
                self.0 = rest;
                return Some(None);
            }
            0xfc => (le(rest.get(..2)?), &rest[2..]),
            0xfd => (le(rest.get(..3)?), &rest[3..]),
            0xfe => (le(rest.get(..8)?), &rest[8..]),
            short => (usize::from(*short), rest),
        };
        let (cell, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Some(cell))
    }
}

fn le(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What is received and not taken yet lies in `buffer[from..to]`.
    from: usize,
    to: usize,
}

impl Connection {
    fn open(args: &RawArgs) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, args.port))
            .with_context(|| format!("no server listens on port {}", args.port))?;
        stream.set_nodelay(true)?;
        let mut connection = Self { stream, buffer: vec![0; BUFFER_BYTES], from: 0, to: 0 };
        connection.packet().context("no greeting")?;
        let mut answer = CAPABILITIES.to_le_bytes().to_vec();
        answer.extend_from_slice(&(1_u32 << 30).to_le_bytes());
        answer.push(UTF8MB4);
        answer.extend_from_slice(&[0; 23]);
        // No password is an empty answer to the challenge.
        for text in [args.user.as_str(), "", args.database.as_str(), "mysql_native_password"] {
            answer.extend_from_slice(text.as_bytes());
            answer.push(0);
        }
        connection.send(1, &answer)?;
        let verdict = connection.packet()?;
        ensure!(verdict.first() == Some(&0), "login refused: {}", error_text(verdict));
        Ok(connection)
    }

    /// Hands each row of the result to `row`.
    fn query(&mut self, sql: &str, mut row: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut command = vec![QUERY];
        command.extend_from_slice(sql.as_bytes());
        self.send(0, &command)?;
        let first = self.packet()?;
        ensure!(!matches!(first.first(), None | Some(0xff)), "{sql}: {}", error_text(first));
        while !is_eof(self.packet()?) {}
        loop {
            let packet = self.packet()?;
            match packet.first() {
                Some(0xff) => bail!("{sql}: {}", error_text(packet)),
                Some(0xfe) if is_eof(packet) => return Ok(()),
                _ => row(packet)?,
            }
        }
    }

    fn send(&mut self, sequence: u8, payload: &[u8]) -> Result<()> {
        let length = u32::try_from(payload.len())?.to_le_bytes();
        let mut packet = vec![length[0], length[1], length[2], sequence];
        packet.extend_from_slice(payload);
        Ok(self.stream.write_all(&packet)?)
    }

    /// The payload of the next packet.
    #[inline]
    fn packet(&mut self) -> Result<&[u8]> {
        let mut wanted = HEADER;
        loop {
            let held = &self.buffer[self.from..self.to];
            if held.len() >= HEADER {
                wanted = HEADER + le(&held[..3]);
                if held.len() >= wanted {
                    let start = self.from + HEADER;
                    self.from += wanted;
                    return Ok(&self.buffer[start..self.from]);
                }
            }
            self.receive(wanted)?;
        }
    }

    /// Receives what there is, into a buffer that has room for a packet of `wanted` bytes.
    fn receive(&mut self, wanted: usize) -> Result<()> {
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        match self.stream.read(&mut self.buffer[self.to..])? {
            0 => bail!("the server closed the connection"),
            length => self.to += length,
        }
        Ok(())
    }
}

fn is_eof(packet: &[u8]) -> bool {
    packet.first() == Some(&0xfe) && packet.len() < 9
}

fn error_text(packet: &[u8]) -> String {
    String::from_utf8_lossy(packet.get(3..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_every_length_are_found() {
        let mut row = b"\x03abc\xfb\x00\xfc\x2c\x01".to_vec();
        row.extend_from_slice(&[b'x'; 300]);
        row.extend_from_slice(b"\xfd\x01\x00\x00y\xfe\x02\x00\x00\x00\x00\x00\x00\x00zz");
        let lengths: Vec<Option<usize>> = Cells(&row).map(|cell| cell.map(<[u8]>::len)).collect();
        assert_eq!(lengths, [Some(3), None, Some(0), Some(300), Some(1), Some(2)]);
        assert_eq!(Cells(b"\x05abc").count(), 0);
    }

    #[test]
    fn marks_inside_cells_are_escaped() {
        let mut text = Vec::new();
        canonical(&[Some(b"a"), None, Some(b"\\N"), Some(b"\x01\x02"), Some(b"")], &mut text);
        assert_eq!(text, b"a\x01\\N\x01\x02N\x01\x02a\x02b\x01");
    }
}
