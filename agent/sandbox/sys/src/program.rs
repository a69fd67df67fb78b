//! The pages of the program itself.

use std::ffi::{c_int, c_void};
use std::io;

/// Lets go of the pages of this program's code and constants: what is needed again comes back from the
/// kernel's cache of the file, or from the file, at the next touch. What only the start has needed stays
/// away, and is the first that the kernel can give to others. Gives the bytes of address space let go of.
///
/// Only whole pages of segments that cannot be written are let go of. Libraries keep theirs.
///
/// # Errors
/// What `madvise` says.
pub fn let_go_of_program() -> io::Result<usize> {
    let mut found = Segments::default();
    let data: *mut Segments = &raw mut found;
    // SAFETY: `segments` has the signature asked for, is called during this call only, and gets `data`,
    // which points to a live value that nobody else uses meanwhile.
    unsafe { libc::dl_iterate_phdr(Some(segments), data.cast()) };
    let page = page_size()?;
    let mut bytes = 0;
    for (start, end) in found.0 {
        let (start, end) = (start.next_multiple_of(page), end / page * page);
        if start < end {
            let address = std::ptr::with_exposed_provenance_mut(start);
            // SAFETY: the range is within a loaded segment of this program that is mapped from its file
            // and never writable: a program is position-independent and linked without text relocations
            // (the linker's default), and is unmapped only with its process. So its pages are those of
            // the file, and reading one again gives the same bytes as before.
            if unsafe { libc::madvise(address, end - start, libc::MADV_DONTNEED) } != 0 {
                return Err(io::Error::last_os_error());
            }
            bytes += end - start;
        }
    }
    Ok(bytes)
}

/// Where the segments are that cannot be written: begin and end, as addresses.
#[derive(Debug, Default)]
struct Segments(Vec<(usize, usize)>);

/// The loader's callback: takes the first object, which is the program, and wants no other.
unsafe extern "C" fn segments(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the loader passes a live object for the time of the call.
    let object = unsafe { &*object };
    // SAFETY: it is the pointer that `let_go_of_program` handed in, and that call waits for this one.
    let found = unsafe { &mut *data.cast::<Segments>() };
    // SAFETY: the loader gives so many headers at that place, alive as long as the object.
    let headers =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    let place = |value: u64| usize::try_from(value).unwrap_or(0);
    for header in headers {
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            let start = place(object.dlpi_addr).wrapping_add(place(header.p_vaddr));
            found
                .0
                .push((start, start.wrapping_add(place(header.p_memsz))));
        }
    }
    1
}

fn page_size() -> io::Result<usize> {
    // SAFETY: sysconf reads a number and touches nothing of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).map_err(|_negative| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program's own code takes of memory, in KiB: of its mappings that can be executed.
    fn resident() -> u64 {
        let program = std::env::current_exe().expect("a name");
        let program = program.to_str().expect("UTF-8");
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
        let mut counts = false;
        let mut sum = 0;
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().expect("a word");
            if !first.ends_with(':') {
                counts = line.contains(" r-xp ") && line.ends_with(program);
            } else if first == "Rss:" && counts {
                sum += words.next().expect("a number").parse::<u64>().expect("KiB");
            }
        }
        sum
    }

    #[test]
    fn code_that_is_not_used_any_more_goes_and_what_is_used_goes_on() {
        let page = page_size().expect("a size");
        assert!(page.is_power_of_two());
        let before = resident();
        let bytes = let_go_of_program().expect("lets go");
        let after = resident();
        assert!(bytes > page, "{bytes}");
        assert!(after < before, "{before} KiB before, {after} KiB after");
        let text: Vec<_> = (0..100).map(|number| format!("{number}")).collect();
        assert_eq!(text.concat().len(), 190);
    }
}
