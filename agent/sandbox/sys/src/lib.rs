//! The system calls of the sandbox: the only unsafe code of the repository.
