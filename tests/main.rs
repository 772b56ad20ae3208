//! System tests: the real `starlift` binary in real processes, a real MariaDB as the source, and the stand-in StarRocks
//! as the target. Fixtures: `process`, `mariadb`, `standin`, `etcd`, `cluster`, `rows` (the judge). Everything listens
//! on the loopback, lives in temporary directories, and ends with its test.

mod bad_input;
mod browser;
mod chaos;
mod check;
mod cluster;
mod commands;
mod commit_job;
mod complaints;
mod compression;
mod console;
mod coordinators;
mod datax;
mod dirty;
mod etcd;
mod examples;
mod failure;
mod faults;
mod hosts;
mod keys;
mod mariadb;
mod migration;
mod netns;
mod operations;
mod parameters;
mod plain;
mod process;
mod rest;
mod rows;
mod scripts;
mod security;
mod source;
mod standin;
mod steer;
mod terminal;
mod text;
mod throttle;
mod types;
