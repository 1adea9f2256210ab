//! How many descriptors this process may open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::{Error, Result};

/// Descriptors that are not connections: an epoll or two, a timer, a file that gets opened meanwhile.
const SPARE: u64 = 16;

/// Makes sure that `wanted` more connections can be opened, and `besides` other descriptors, raising the soft RLIMIT_NOFILE to the
/// hard one if it must. A process may do that by itself; beyond the hard limit only root may go.
///
/// # Errors
///
/// [`Error::TooManyConnections`] when the hard limit does not allow it.
pub(crate) fn make_room_for(wanted: usize, besides: usize) -> Result<()> {
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| Error::system("getrlimit", errno))?;
    // What is open already counts too: a test may hold several crowds. Without /proc, trust SPARE.
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let needed = wanted as u64 + besides as u64 + open + SPARE;
    if needed > hard {
        return Err(Error::TooManyConnections { wanted, open, hard });
    }
    if needed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
            .map_err(|errno| Error::system("setrlimit", errno))?;
    }
    Ok(())
}
