//! What limits each measure, as profiles show it, and what was changed where it was not close to that.

/// In a few sentences, for the page.
pub(crate) fn of(row: &str) -> Option<&'static str> {
    Some(match row {
        "event" => {
            "three threads are woken one after the other: the ring's reader, the API's thread, the watcher. The first two have a \
             real-time priority; until the API got a thread of its own, p99 was 9 ms. What is left above the least value is the \
             time until a virtual processor runs at all: the bare wait on a pidfd has the same tail."
        }
        "verified" => {
            "the kernel's own work at an exit: memory and files of the killed process are given back before its pidfd wakes \
             anybody. Behind that the finding costs one look at the path and one question about the socket. A known socket is \
             asked for by its number; the list of all bound sockets is only read where nobody has seen one at the path."
        }
        "who" => {
            "attached: half of it is the start of the program (exec, 250 page faults, dynamic linking), a tenth the daemon's look. \
             The daemon asks the kernel for the known socket by its number, and whether anybody else holds it by the number of \
             references to its file; before, it listed all UNIX sockets each time, and the time grew with the host. Alone: the \
             kernel walks through all open files once, and shows only those of the socket: that walk is nearly all that is left; the \
             kernel's types, which it needs, are mapped where the kernel allows it (9 ms less). Beside fewer open files than the aim was set for, lsof is sooner too."
        }
        "growth-processes" => {
            "attached, the daemon walks through nothing any more but the kernel does, to find the socket by its number. The rest is \
             the start of a program, which takes twice as long beside 5,000 processes as beside 80, whatever it does: see the \
             floor above."
        }
        "cold" => {
            "a quarter is the verifier, which follows each of the programs; an eighth the kernel's types, which the loader and \
             probe read (at the same time, since they wait for each other nowhere); a third the iterators over open files and \
             tasks. /proc is read only for processes that a declaration may select, by the file and the name of what they run: \
             it was read for all of them three times (645 ms). A second snapshot is taken only if a look at all tasks shows that \
             something began or ended meanwhile. A daemon that goes on with the programs of the one before it skips the verifier."
        }
        "idle" => {
            "nothing: every thread waits, and nothing wakes one. A snapshot each `settle_every` (a minute) is all that is done."
        }
        "memory" => {
            "with 500 services: 11 MiB are the program's own text, which the page cache shares with everybody who runs it; 8 MiB \
             the ring of 4 MiB, which the kernel maps twice so that a record never wraps (`ring` makes it smaller); 1 MiB the C \
             library. What probe allocates is the rest. What a start takes (the kernel's types, some 20 MiB) is given back. With \
             10,000, each service takes some 14 KiB: its state in the engine is 2.3 KiB, its declaration, which four parts hold, \
             1 KiB each, its paths and sockets are in several maps by name."
        }
        "storm" => {
            "the fork of a whole process is what the generators can make of it; the reader sleeps between batches. The engine \
             alone is measured on records that are decoded already: it formats a line for each signal, which is half of its time."
        }
        "tax" => {
            "a tracepoint that has a program costs what the empty programs cost. On a stranger's signal probe's program then reads \
             two numbers of the target and looks into one map; it looked into two maps before. A bind in a directory with \
             declared sockets wakes probe through fanotify, which has no filter for names: the price is that of the wake-up on \
             the same two cores. Undeclared sockets elsewhere cost nothing."
        }
        "growth-services" => {
            "an event costs the same beside any number of services. A reload reads all files and compares all declarations, and \
             takes a snapshot, because what was declared anew has to be found by looking: it grows with the total. Findings do not \
             wait for it: events go on to be taken meanwhile, and nothing that stays declared is forgotten."
        }
        "stream" => {
            "three threads on two cores: the source, the API's thread, the client, which prints each line. A line of JSON is made \
             once and shared by all clients; the client reads it no further than it must."
        }
        "build" => {
            "the program holds SQLite, an HTTP server, a D-Bus client and the verifier's object, and unwinds: a fault in a client's \
             connection must not end the daemon. Without unwinding it would be a fifth smaller."
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_measure_says_what_limits_it() {
        for name in crate::measure::row_names() {
            assert!(super::of(name).is_some(), "{name}");
        }
    }
}
