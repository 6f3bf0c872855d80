//! The ports of a cluster on this machine: free ones, looked for before anything is started.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use crate::load::Failed;

/// How many ports beyond the usual one are tried. There is one node at the usual port, or a few clusters.
const TRIED: u16 = 500;

/// A flag that names the first port of a range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    /// The flag.
    pub(crate) flag: &'static str,
    /// The value of the flag, if it was given.
    pub(crate) given: Option<u16>,
    /// The first port that is tried if the flag was not given.
    pub(crate) usual: u16,
}

impl Ports {
    /// Returns the first of `count` free ports that lie one after the other: those that the flag names, or
    /// else the nearest to the usual ones.
    ///
    /// # Errors
    ///
    /// If a port that the flag names is in use, or none are free.
    pub(crate) fn first(self, count: u16) -> Result<u16, Failed> {
        let Self { flag, given, usual } = self;
        if let Some(first) = given {
            return match (first..first + count).find_map(in_use) {
                None => Ok(first),
                Some(why) => Err(format!("{why}: name other ports with {flag}").into()),
            };
        }
        let mut firsts = usual..usual + TRIED;
        firsts
            .find(|first| (*first..first + count).all(|port| in_use(port).is_none()))
            .ok_or_else(|| format!("no ports are free from {usual} on: name others with {flag}").into())
    }
}

/// Returns an error if two ranges overlap.
pub(crate) fn distinct(one: Range<u16>, other: Range<u16>) -> Result<(), Failed> {
    if one.start < other.end && other.start < one.end {
        return Err("--http-port and --link-port name the same ports".into());
    }
    Ok(())
}

/// Returns why a port cannot be listened on, if it cannot.
fn in_use(port: u16) -> Option<String> {
    let address = (Ipv4Addr::LOCALHOST, port);
    let error = TcpListener::bind(address).err()?;
    Some(format!("127.0.0.1:{port} cannot be listened on: {error}"))
}
