//! Tests that run the real `ww` on real guests.

mod support;
mod children;
// mod layout;
mod run;
mod swarm;
mod tidy;
