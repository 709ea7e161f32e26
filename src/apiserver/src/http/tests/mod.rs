//! Behaviour over HTTP: most of it without a socket, the rest over TLS on
//! the loopback interface.

mod access;
mod custom;
mod errors;
mod kinds;
mod lists;
mod objects;
mod sockets;
mod watches;
