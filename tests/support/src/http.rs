//! The checks about a server that speaks HTTP.
