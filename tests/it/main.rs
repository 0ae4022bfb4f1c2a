//! it
#[test]
fn x() {}
