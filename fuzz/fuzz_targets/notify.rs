#![cfg_attr(fuzzing, no_main)]

probe_fuzz::program!("notify");
