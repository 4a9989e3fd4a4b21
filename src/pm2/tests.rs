//! PM2's lists, and what passes for its processes under a real `/proc`.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its scene must end")]

mod lists;
