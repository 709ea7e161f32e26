//! Snapshots are checkpoints of the state's database: directories of hard
//! links, cheap to make, sent file by file.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use barque_proto::v1::snapshot_chunk::Body;
use barque_proto::v1::{SnapshotChunk, SnapshotEnd, SnapshotPiece};
use rocksdb::DB;
use rocksdb::checkpoint::Checkpoint;
use tracing::warn;

use crate::error::OpenError;
use crate::state::db::{self, Meta};

/// Bytes of a file sent in one message.
const PIECE_BYTES: usize = 256 << 10;

struct Files {
    path: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, path = %self.path.display(), "cannot remove a snapshot");
        }
    }
}

/// A directory with a checkpoint, removed when nobody uses it any more.
#[derive(Clone)]
pub struct SnapshotDir {
    files: Arc<Files>,
}

impl SnapshotDir {
    /// Takes charge of a directory.
    pub fn new(path: PathBuf) -> Self {
        Self { files: Arc::new(Files { path }) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.files.path
    }
}

impl std::fmt::Debug for SnapshotDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "snapshot in {}", self.files.path.display())
    }
}

/// Makes a checkpoint; it contains only flushed, synced files, and so does
/// the state as of the checkpoint.
pub fn build(db: &DB, path: PathBuf) -> Result<(Meta, SnapshotDir), OpenError> {
    // Without a log of its own, only what is flushed gets into a checkpoint.
    db::flush(db).map_err(|error| OpenError::database(&path, error))?;
    let checkpoint = || Checkpoint::new(db)?.create_checkpoint(&path);
    checkpoint().map_err(|error| OpenError::database(&path, error))?;
    let dir = SnapshotDir::new(path);
    // Other entries may have been applied since somebody looked: what counts
    // is what is inside.
    let meta = db::read_checkpoint_meta(dir.path())?;
    Ok((meta, dir))
}

/// Makes a copy of a checkpoint that a database may be opened on: what is
/// never changed is linked, the rest copied; all of it synced.
pub fn materialize(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for item in fs::read_dir(from)? {
        let item = item?;
        let source = item.path();
        let target = to.join(item.file_name());
        if source.extension().is_some_and(|extension| extension == "sst") {
            fs::hard_link(&source, &target)?;
        } else if item.file_type()?.is_file() && !is_private(&source) {
            fs::copy(&source, &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    File::open(to)?.sync_all()
}

/// Files that belong to one open database only.
fn is_private(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name == "LOCK" || name.starts_with("LOG")
}

/// Hands the content of a snapshot out in pieces, and the end mark.
pub fn read_pieces(dir: &SnapshotDir, mut send: impl FnMut(SnapshotChunk) -> io::Result<()>) -> io::Result<()> {
    let mut names: Vec<_> = fs::read_dir(dir.path())?.collect::<Result<Vec<_>, _>>()?;
    names.sort_by_key(fs::DirEntry::file_name);
    let mut sum = 0;
    let mut total = 0;
    for item in names {
        let path = item.path();
        if is_private(&path) || !item.file_type()?.is_file() {
            continue;
        }
        let name = item.file_name().into_string().map_err(|_| io::Error::other("a file name is not UTF-8"))?;
        let mut file = File::open(&path)?;
        let mut offset = 0;
        loop {
            let mut data = vec![0; PIECE_BYTES];
            let mut filled = 0;
            while filled < data.len() {
                match file.read(&mut data[filled..])? {
                    0 => break,
                    read => filled += read,
                }
            }
            // An empty file is sent, too.
            if filled == 0 && offset > 0 {
                break;
            }
            data.truncate(filled);
            sum = crc32c::crc32c_append(sum, &data);
            total += filled as u64;
            let piece = SnapshotPiece { file: name.clone(), offset, data: data.into() };
            send(SnapshotChunk { body: Some(Body::Piece(piece)) })?;
            offset += filled as u64;
            if filled == 0 {
                break;
            }
        }
    }
    send(SnapshotChunk { body: Some(Body::End(SnapshotEnd { crc32c: sum, bytes: total })) })
}

/// Writes a snapshot that arrives in pieces into a directory of its own.
pub struct Receiver {
    dir: SnapshotDir,
    current: Option<(String, File, u64)>,
    sum: u32,
    total: u64,
}

impl Receiver {
    /// Starts in a new directory.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self { dir: SnapshotDir::new(path), current: None, sum: 0, total: 0 })
    }

    /// Takes the next piece.
    pub fn piece(&mut self, piece: &SnapshotPiece) -> io::Result<()> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        let is_current = self.current.as_ref().is_some_and(|(name, ..)| *name == piece.file);
        if !is_current {
            self.close()?;
            let plain = Path::new(&piece.file).components().collect::<Vec<_>>();
            if !matches!(plain[..], [Component::Normal(_)]) {
                return Err(invalid("a file name in the snapshot is not plain"));
            }
            let file = File::create_new(self.dir.path().join(&piece.file))?;
            self.current = Some((piece.file.clone(), file, 0));
        }
        let Some((_, file, offset)) = &mut self.current else {
            return Err(invalid("a piece without a file"));
        };
        if *offset != piece.offset {
            return Err(invalid("a piece of the snapshot is out of order"));
        }
        file.write_all(&piece.data)?;
        *offset += piece.data.len() as u64;
        self.sum = crc32c::crc32c_append(self.sum, &piece.data);
        self.total += piece.data.len() as u64;
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.current.take().map_or(Ok(()), |(_, file, _)| file.sync_all())
    }

    /// Checks that nothing is missing, and makes all of it durable.
    pub fn finish(mut self, end: &SnapshotEnd) -> io::Result<SnapshotDir> {
        self.close()?;
        if (end.crc32c, end.bytes) != (self.sum, self.total) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the snapshot arrived damaged"));
        }
        File::open(self.dir.path())?.sync_all()?;
        Ok(self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces_of(dir: &SnapshotDir) -> Vec<SnapshotChunk> {
        let mut chunks = Vec::new();
        read_pieces(dir, |chunk| {
            chunks.push(chunk);
            Ok(())
        })
        .expect("read");
        chunks
    }

    fn receive(path: PathBuf, chunks: &[SnapshotChunk]) -> io::Result<SnapshotDir> {
        let mut receiver = Receiver::new(path)?;
        for chunk in chunks {
            match chunk.body.as_ref().expect("a body") {
                Body::Piece(piece) => receiver.piece(piece)?,
                Body::End(end) => return receiver.finish(end),
                Body::Header(_) => {}
            }
        }
        Err(io::Error::other("no end"))
    }

    #[test]
    fn a_snapshot_arrives_as_it_was_sent_or_not_at_all() {
        let root = tempfile::tempdir().expect("a directory");
        let source = root.path().join("source");
        fs::create_dir(&source).expect("made");
        fs::write(source.join("a.sst"), vec![7; PIECE_BYTES * 2]).expect("written");
        fs::write(source.join("b"), b"").expect("written");
        fs::write(source.join("c"), vec![9; PIECE_BYTES + 5]).expect("written");
        fs::write(source.join("LOG"), b"private").expect("written");
        let chunks = pieces_of(&SnapshotDir::new(source));
        let received = receive(root.path().join("one"), &chunks).expect("received");
        assert_eq!(fs::read(received.path().join("c")).expect("read"), vec![9; PIECE_BYTES + 5]);
        assert_eq!(fs::read(received.path().join("b")).expect("read"), b"");
        assert!(!received.path().join("LOG").exists());

        for at in 0..chunks.len() - 1 {
            let mut lost = chunks.clone();
            lost.remove(at);
            let result = receive(root.path().join(format!("lost{at}")), &lost);
            // Losing an empty file changes nothing that is summed up; RocksDB
            // would miss it.
            let empty = matches!(&chunks[at].body, Some(Body::Piece(piece)) if piece.data.is_empty());
            assert!(result.is_err() || empty, "piece {at} was not missed");
        }
        let mut damaged = chunks.clone();
        if let Some(Body::Piece(piece)) = &mut damaged[0].body {
            let mut data = piece.data.to_vec();
            data[3] ^= 1;
            piece.data = data.into();
        }
        assert!(receive(root.path().join("damaged"), &damaged).is_err());
        let mut outside = chunks;
        if let Some(Body::Piece(piece)) = &mut outside[0].body {
            "../outside".clone_into(&mut piece.file);
        }
        assert!(receive(root.path().join("outside"), &outside).is_err());
        assert!(!root.path().join("outside").join("../outside").is_file());
    }
}
