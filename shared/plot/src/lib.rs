//! What the book shows of figures: plots that read in light and in dark, numbers as people read them, and what
//! the figures were taken on.

pub mod machine;
pub mod number;
pub mod svg;
