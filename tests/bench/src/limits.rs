//! What limits each measure, as profiles show it, and what was changed where it was not close to that.

/// In a few sentences, for the page.
pub(crate) fn of(row: &str) -> Option<&'static str> {
    Some(match row {
        "event" => {
            "the daemon's part are two threads that are woken one after the other: the ring's reader, and the API's thread, \
             which writes. Both have a real-time priority while somebody watches; until the API got a thread of its own, p99 \
             was 9 ms. What is left above the least value is the time until a virtual processor runs at all: the bare wait on \
             a pidfd has the same tail, and the tools that only print what a hook tells take as long. To be sooner than that \
             the ring's reader would have to write itself."
        }
        "verified" => {
            "the kernel's own work at an exit: memory and files of the killed process are given back before its pidfd wakes \
             anybody. Behind that the finding costs one look at the path and one question about the socket. A known socket is \
             asked for by its number; the list of all bound sockets is only read where nobody has seen one at the path."
        }
        "who" => {
            "attached: half of it is the start of the program (exec, 200 page faults, dynamic linking), a third that two \
             threads are woken, a sixth the daemon's look. The daemon asks for the known socket in the files of who holds it, \
             by an iterator over that one process, and whether anybody else holds it by the number of references to its file: \
             nothing is walked through. unix_diag, which was asked before, walks through the host's whole table for one \
             socket. Alone: the kernel walks through all open files once, and shows only those of the socket: that walk is \
             nearly all that is left; the kernel's types, which it needs, are mapped where the kernel allows it (9 ms less). \
             lsof is sooner here than where the aim was set: 0.6 ms for each process, where it was 1.3 ms."
        }
        "growth-processes" => {
            "nothing: neither the daemon nor the kernel walks through anything for a socket whose holder is known. Until the \
             socket was looked for in its holder's files, the kernel's search through all UNIX sockets doubled the time."
        }
        "cold" => {
            "half of it is the kernel: 25 ms the verifier, which follows each of the programs (70 ms until the exit hook's \
             loop was cut into portions), 35 ms one pass over the open files of all processes, the rest one over all tasks, \
             maps and marks. An eighth are the kernel's types, which the loader and probe read (at the same time, since they \
             wait for each other nowhere). /proc is read only for processes that a declaration may select, by the file and \
             the name of what they run: it was read for all of them three times (645 ms). A second snapshot is taken only if \
             a look at all tasks shows that something began or ended meanwhile. A daemon that goes on with the programs of \
             the one before it skips the verifier."
        }
        "idle" => {
            "nothing: every thread waits, and nothing wakes one. A snapshot each `settle_every` (a minute) is all that is done."
        }
        "memory" => {
            "18 MiB are there without any service: 8 MiB the ring of 4 MiB, which the kernel maps twice so that a record \
             never wraps (`ring` makes it smaller), 7.5 MiB the program's own text, which the page cache shares with \
             everybody who runs it, 2 MiB the C library. 4 MiB more are what probe allocates without a service. What a start \
             takes (the kernel's types, some 20 MiB) is given back. With 10,000, each service takes some 14 KiB: its state in \
             the engine is 2.3 KiB, its declaration, which four parts hold, 1 KiB each, its paths and sockets are in several \
             maps by name, and each map has room for eleven where it holds one."
        }
        "storm" => {
            "the fork of a whole process is what the generators can make of it; the reader sleeps between batches. The engine \
             alone is measured on records that are decoded already: it formats a line for each signal, which is a third of \
             its time. Its facts were a tree of strings until they became a short list of words: half again as many."
        }
        "tax" => {
            "a tracepoint that has a program costs what the empty programs cost. On a stranger's signal probe's program then \
             reads two numbers of the target and looks into one map; it looked into two maps before. Behind an exec lie three \
             programs, of fork, exec and exit: 0.2, 0.8 and 1.2 µs, measured by the kernel's own statistics; the last one \
             notes who it was, because whoever removes a socket file has mostly ended when that is told, and took 1.7 µs \
             while that was a hash table. A bind in a directory with declared sockets wakes probe through fanotify, which has \
             no filter for names: the price is that of the wake-up on the same two cores. Undeclared sockets elsewhere cost \
             nothing."
        }
        "growth-services" => {
            "an event costs the same beside any number of services. A reload reads all files and compares all declarations, and \
             takes a snapshot, because what was declared anew has to be found by looking: it grows with the total. Findings do not \
             wait for it: events go on to be taken meanwhile, and nothing that stays declared is forgotten."
        }
        "stream" => {
            "three threads on two cores: the source, the API's thread, the client, which prints each line. A line of JSON is \
             made once and shared by all clients; the client looks for its end and, where it has to be asked again, for its \
             number."
        }
        "build" => {
            "the program holds SQLite, an HTTP server, a D-Bus client and the object of the programs, and unwinds: a fault in \
             a client's connection must not end the daemon. It was 16 MiB until it was optimised for size and as a whole, \
             which made it no slower, and SQLite lost what a table of findings does not need."
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
