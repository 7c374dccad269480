//! Signals as something to poll for.

use crate::Result;
use std::os::fd::{AsFd, BorrowedFd};

pub use system::Signals;

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file()
    }
}

impl Signals {
    /// Takes all that have come; true when one of them was another than SIGCHLD.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take(&mut self) -> Result<bool> {
        let mut others = false;
        while let Some(signal) = self.next()? {
            others |= signal != nix::libc::SIGCHLD;
        }
        Ok(others)
    }
}

#[cfg(target_os = "linux")]
mod system {
    use crate::{Result, while_doing};
    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    use std::os::fd::{AsFd, BorrowedFd};

    /// SIGCHLD, SIGTERM and SIGINT, which are blocked from now on.
    #[derive(Debug)]
    pub struct Signals(SignalFd);

    impl Signals {
        /// # Errors
        /// When the kernel refuses.
        pub fn new() -> Result<Self> {
            let wanted: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
            wanted.thread_block().map_err(while_doing("block signals"))?;
            SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
                .map(Self)
                .map_err(while_doing("listen for signals"))
        }

        pub(super) fn file(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        pub(super) fn next(&mut self) -> Result<Option<i32>> {
            let signal = self.0.read_signal().map_err(while_doing("read a signal"))?;
            Ok(signal.map(|signal| signal.ssi_signo.cast_signed()))
        }
    }
}

#[cfg(target_os = "macos")]
mod system {
    use crate::{Result, while_doing};
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use std::io::{ErrorKind, PipeReader, PipeWriter, Read};
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
    use std::sync::atomic::{AtomicI32, Ordering};

    /// Where the handler writes.
    static WRITER: AtomicI32 = AtomicI32::new(-1);

    /// SIGCHLD, SIGTERM and SIGINT, through a pipe.
    #[derive(Debug)]
    pub struct Signals {
        reader: PipeReader,
        /// Open for as long as the handler may write.
        _writer: PipeWriter,
    }

    extern "C" fn note(signal: nix::libc::c_int) {
        // All three are below 256. A pipe that is full has enough to wake the reader.
        let number = signal as u8;
        // SAFETY: write(2) may be called by a handler, and reads one byte that lives.
        #[allow(unsafe_code)]
        unsafe {
            nix::libc::write(WRITER.load(Ordering::Relaxed), (&raw const number).cast(), 1);
        }
    }

    impl Signals {
        /// # Errors
        /// When the kernel refuses.
        pub fn new() -> Result<Self> {
            let (reader, writer) = std::io::pipe().map_err(while_doing("make a pipe"))?;
            for end in [reader.as_fd(), writer.as_fd()] {
                fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(while_doing("prepare a pipe"))?;
            }
            WRITER.store(writer.as_raw_fd(), Ordering::Relaxed);
            for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
                let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
                // SAFETY: the handler does what a handler may do.
                #[allow(unsafe_code)]
                unsafe { sigaction(signal, &action) }.map_err(while_doing("listen for signals"))?;
            }
            Ok(Self { reader, _writer: writer })
        }

        pub(super) fn file(&self) -> BorrowedFd<'_> {
            self.reader.as_fd()
        }

        pub(super) fn next(&mut self) -> Result<Option<i32>> {
            let mut number = [0];
            match self.reader.read(&mut number) {
                Ok(1..) => Ok(Some(i32::from(number[0]))),
                Ok(0) => Ok(None),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    Ok(None)
                }
                Err(error) => Err(while_doing("read a signal")(error)),
            }
        }
    }
}
