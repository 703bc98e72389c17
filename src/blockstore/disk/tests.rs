//! What only the store on disk has to do.
