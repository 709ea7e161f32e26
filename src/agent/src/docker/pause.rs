//! The image of sandboxes: one tiny static program made on the spot, so that
//! no registry is needed. `tools/pause` holds its source.

use std::time::Duration;

use bollard::query_parameters::CreateImageOptionsBuilder;
use bollard::{Docker, body_full};
use futures::StreamExt as _;

/// Name of the image; the tag changes with the program.
pub const IMAGE: &str = "barque/pause:1";
/// Path of the program in the image.
pub const COMMAND: &str = "/pause";

const X86_64: &[u8] = include_bytes!("pause/x86_64.bin");
const AARCH64: &[u8] = include_bytes!("pause/aarch64.bin");

/// ELF's numbers of the two processors.
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
/// Where the program is loaded.
const BASE: u64 = 0x40_0000;
/// Sizes of the ELF header and of one program header.
const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;

/// A processor the sandbox program does not exist for.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// See `PauseError`.
    #[error("no sandbox program for architecture {0}")]
    Architecture(String),
    /// The engine did not take the image.
    #[error("making the image {IMAGE}")]
    Engine(#[from] bollard::errors::Error),
}

/// A static executable of one segment.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let start = HEADER + PROGRAM_HEADER;
    let size = start + code.len() as u64;
    let mut out = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    out.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.extend(2u16.to_le_bytes()); // an executable
    out.extend(machine.to_le_bytes());
    out.extend(1u32.to_le_bytes()); // version
    out.extend((BASE + start).to_le_bytes()); // entry
    out.extend(HEADER.to_le_bytes()); // program headers' offset
    out.extend(0u64.to_le_bytes()); // no section headers
    out.extend(0u32.to_le_bytes()); // flags
    for half in [64u16, 56, 1, 64, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    out.extend(1u32.to_le_bytes()); // a segment to load
    out.extend(5u32.to_le_bytes()); // readable, executable
    for word in [0u64, BASE, BASE, size, size, 0x1_0000] {
        out.extend(word.to_le_bytes());
    }
    out.extend(code);
    out
}

/// A tar archive with one executable file.
fn tar(name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", data.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = header.to_vec();
    out.extend(data);
    out.resize(out.len().next_multiple_of(512) + 1024, 0);
    out
}

/// Makes sure that the engine has the image.
pub async fn ensure(docker: &Docker, architecture: &str) -> Result<(), PauseError> {
    match docker.inspect_image(IMAGE).await {
        Ok(_) => return Ok(()),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let program = match architecture {
        "x86_64" | "amd64" => elf(EM_X86_64, X86_64),
        "aarch64" | "arm64" => elf(EM_AARCH64, AARCH64),
        other => return Err(PauseError::Architecture(other.to_owned())),
    };
    let (repository, tag) = IMAGE.split_once(':').expect("the constant has a tag");
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).build();
    let body = body_full(tar(COMMAND.trim_start_matches('/'), &program).into());
    let mut answers =
        Box::pin(docker.clone().with_timeout(Duration::from_mins(1)).create_image(Some(options), Some(body), None));
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_runs_and_ends_on_sigterm() {
        use std::os::unix::fs::PermissionsExt as _;
        use std::os::unix::process::ExitStatusExt as _;
        if !cfg!(target_arch = "x86_64") {
            eprintln!("skipped: the test runs the x86_64 program");
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pause");
        std::fs::write(&path, elf(EM_X86_64, X86_64)).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        let mut child = std::process::Command::new(&path).spawn().expect("starts");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        // The program blocks its signals first; one that comes earlier ends it by default.
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("sent");
        let status = child.wait().expect("ends");
        assert!(status.code() == Some(0) || status.signal() == Some(15), "{status:?}");
    }

    #[test]
    fn the_archive_is_one_file() {
        let archive = tar("pause", &[1, 2, 3]);
        assert_eq!(archive.len(), 512 + 512 + 1024);
        assert_eq!(&archive[..5], b"pause");
        assert_eq!(&archive[512..515], [1, 2, 3]);
        assert_eq!(&archive[124..135], b"00000000003");
    }
}
