//! The lines that a running `faulty serve` obeys.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{SigSet, Signal, raise},
    unistd::Pid,
};

use super::{heartbeat, lifecycle, memory, options, say, serve::Daemon, sockets::Sockets};

pub(super) const HELP: &str = "\
Lines on standard input (an ADDRESS is unix:PATH, unix:@NAME, tcp:IP:PORT or udp:IP:PORT; words are split at blanks):
  bind ADDRESS       bind, do not listen
  listen ADDRESS     listen; binds first where that was not done
  close ADDRESS      close the socket
  io_uring           from now on bind and listen through io_uring
  shutdown ADDRESS   shut the socket down, keep it open
  rebind ADDRESS     unlink the socket file, bind and listen there anew, close the old socket
  unlink PATH        remove a file
  rename FROM TO     rename a file
  link FROM TO       make a hard link
  chdir DIRECTORY    change the working directory
  pid-file [TEXT]    write the PID file anew, with TEXT instead of the own pid
  chroot DIR         change the root directory
  fork [N]           fork N children that do nothing; says their pids
  burst N            fork N children, one after the other, that end at once
  fork-bound         the same for one that gets SIGTERM when its parent dies
  fork-away          fork one that goes its own way: own session, orphaned, holds no socket; says its pid
  main-exit          say ok, end the first thread; another one goes on
  hand-over          fork a child that goes on with everything, exit 0; the child says its pid
  exec               exec itself, keeping the listeners; says `ready …` again
  exec-anew          exec itself, the listeners close by that; says `ready …` again
  fork-exec          start cat(1): the child's copies of the listeners close by its exec; says its pid
  raise SIGNAL [N]   raise it, N times
  die SIGNAL         end by the signal's default action
  alloc MIB          take memory and keep it
  stop-cleanly       say ok, close the listeners, remove socket files and PID file, exit 0
  exit CODE          say ok, exit at once, leaving everything behind
  accept ADDRESS     accept a connection and close it
  connect ADDRESS    connect to a TCP address
  ask                say ok, send a question over that connection, wait for the answer
  give ADDRESS PATH  pass the socket (SCM_RIGHTS) to whoever receives at PATH, go on holding it
  receive-at PATH    receive sockets there
  receive ADDRESS    take the socket that was passed
  mute               show no sign of life any more
  unmute             show them again
  touch FILE         set the file's modification time
  log FILE TEXT      append a line to a file
  signal PID SIGNAL  send a signal
  alarm              let the kernel send SIGALRM in a second
  sigwait SIGNAL     block it, say ok, wait for it with sigwait(3), say `signal NAME`
  vfork              say ok, wait for ever for a child of vfork(2): uninterruptible sleep
  ping               say ok
Answers: `ok …`, `error …`; at any time `signal NAME` for a caught signal.";

impl Daemon {
    /// Obeys a line and answers it.
    pub(super) fn obey(&mut self, line: &str) {
        match self.execute(line) {
            Ok(answer) => say(format!("ok {answer}").trim_end()),
            // One line, whatever the error says.
            Err(e) => say(&format!("error {}", format!("{e:#}").replace('\n', " "))),
        }
    }

    fn execute(&mut self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let nothing = Ok(String::new());
        match words[..] {
            ["bind", address] => self.sockets.bind(address),
            ["listen", address] => self.sockets.listen(address),
            ["io_uring"] => self.sockets.through_io_uring().and(nothing),
            ["rebind", address] => self.sockets.rebind(address),
            ["close", address] => self.sockets.close(address).and(nothing),
            ["shutdown", address] => self.sockets.shutdown(address).and(nothing),
            ["unlink", path] => Ok(fs::remove_file(path)?).and(nothing),
            ["rename", from, to] => Ok(fs::rename(from, to)?).and(nothing),
            ["link", from, to] => Ok(fs::hard_link(from, to)?).and(nothing),
            ["chdir", path] => Ok(std::env::set_current_dir(path)?).and(nothing),
            ["pid-file"] => self.write_pid_file().and(nothing),
            ["pid-file", text] => {
                let path: &PathBuf = self.pid_file.as_ref().context("started without --pid-file")?;
                lifecycle::write_pid_file(path, text).and(nothing)
            }
            ["chroot", dir] => lifecycle::chroot(dir.as_ref()).and(nothing),
            ["fork"] => fork(1),
            ["fork-bound"] => lifecycle::fork_bound(Signal::SIGTERM).map(|pid| pid.to_string()),
            ["fork", n] => fork(n.parse().context("number of children")?),
            ["fork-away"] => lifecycle::fork_away(&mut self.sockets).map(|pid| pid.to_string()),
            ["main-exit"] => {
                say("ok");
                lifecycle::end_first_thread()
            }
            ["hand-over"] => {
                if lifecycle::fork_here()?.is_some() {
                    lifecycle::leave(0);
                }
                self.write_pid_file()?;
                Ok(std::process::id().to_string())
            }
            ["exec-anew"] => lifecycle::exec(&Sockets::new(false), self.pid_file.as_deref()).and(nothing),
            ["fork-exec"] => Ok(lifecycle::fork_exec("cat", &[])?.to_string()),
            ["fork-exec", program, ref args @ ..] => Ok(lifecycle::fork_exec(program, args)?.to_string()),
            ["exec"] => lifecycle::exec(&self.sockets, self.pid_file.as_deref()).and(nothing),
            ["burst", n] => lifecycle::burst(n.parse().context("how many")?).and(nothing),
            ["raise", name] => self.raise(options::signal(name)?, 1).and(nothing),
            ["raise", name, n] => self
                .raise(options::signal(name)?, n.parse().context("how often")?)
                .and(nothing),
            ["die", name] => super::signals::die_of(options::signal(name)?).and(nothing),
            ["alloc", mib] => {
                memory::hoard(mib.parse().context("MiB")?);
                nothing
            }
            ["stop-cleanly"] => {
                say("ok");
                self.stop_cleanly()
            }
            ["exit", code] => {
                let code = code.parse().context("exit code")?;
                say("ok");
                lifecycle::leave(code)
            }
            ["accept", address] => self.sockets.accept(address).and(nothing),
            ["connect", address] => self.peer.connect(address).and(nothing),
            ["ask"] => {
                say("ok");
                self.peer.ask()?;
                Ok("answered".to_owned())
            }
            ["give", address, path] => self.sockets.give(address, path).and(nothing),
            ["receive-at", path] => self.sockets.receive_at(path).and(nothing),
            ["receive", address] => self.sockets.receive(address).and(nothing),
            ["mute"] => {
                self.muted = true;
                nothing
            }
            ["unmute"] => {
                self.muted = false;
                nothing
            }
            ["touch", path] => heartbeat::touch(path).and(nothing),
            ["log", path, ..] => heartbeat::log(path, &words[2..].join(" ")).and(nothing),
            ["signal", pid, name] => {
                let pid = Pid::from_raw(pid.parse().context("pid")?);
                nix::sys::signal::kill(pid, options::signal(name)?)?;
                nothing
            }
            ["alarm"] => {
                nix::unistd::alarm::set(1);
                nothing
            }
            ["sigwait", name] => {
                let signal = options::signal(name)?;
                let set = SigSet::from(signal);
                set.thread_block()?;
                say("ok");
                set.wait()?;
                say(&format!("signal {}", signal.as_str().trim_start_matches("SIG")));
                Ok("waited".to_owned())
            }
            ["vfork"] => {
                say("ok");
                lifecycle::wait_for_vfork()
            }
            ["ping"] => nothing,
            _ => bail!("unknown command {line:?}"),
        }
    }

    fn raise(&mut self, signal: Signal, times: u32) -> Result<()> {
        for _ in 0..times {
            raise(signal)?;
        }
        Ok(())
    }
}

fn fork(n: u32) -> Result<String> {
    let mut pids = Vec::new();
    for _ in 0..n {
        match lifecycle::fork_here()? {
            Some(child) => pids.push(child.to_string()),
            None => lifecycle::idle(),
        }
    }
    Ok(pids.join(" "))
}
