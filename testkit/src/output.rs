//! Outputs for processes: terminals, and outputs that cannot be written.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Size of a full pipe: the smallest that the system allows.
const PIPE_BYTES: usize = 4_096;

/// Returns a disk without room.
pub fn full() -> io::Result<Stdio> {
    Ok(OpenOptions::new().write(true).open("/dev/full")?.into())
}

/// Returns a pipe that is full. Writing to it blocks while the reader is kept, and fails once the reader is
/// dropped.
pub fn stalled() -> io::Result<(PipeReader, Stdio)> {
    let (reader, mut writer) = io::pipe()?;
    fcntl_setpipe_size(&writer, PIPE_BYTES)?;
    writer.write_all(&vec![b'\n'; fcntl_getpipe_size(&writer)?])?;
    Ok((reader, writer.into()))
}

/// Returns a pipe with room for the lines that a program prints at its start. Once the reader is dropped,
/// writing fails.
pub fn pipe() -> io::Result<(PipeReader, Stdio)> {
    let (reader, writer) = io::pipe()?;
    Ok((reader, writer.into()))
}

/// Returns a terminal, and its end for the process.
pub fn terminal() -> io::Result<(File, Stdio)> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&terminal)?;
    unlockpt(&terminal)?;
    let name = ptsname(&terminal, Vec::new())?;
    let end = OpenOptions::new()
        .read(true)
        .write(true)
        .open(OsStr::from_bytes(name.as_bytes()))?;
    Ok((terminal.into(), end.into()))
}
