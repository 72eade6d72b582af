//! Key schedule, proofs and signatures.
use alloc::vec::Vec;
/// What a connection proves.
#[derive(Clone, Debug)]
pub struct Secret(Vec<u8>);
/// A derived secret.
#[derive(Clone, Debug)]
pub struct Salted([u8; 32]);
/// A hub's table of credentials.
#[derive(Clone, Debug)]
pub struct Credentials;
