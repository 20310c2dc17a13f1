//! Where a state directory lies: network file systems are refused, FAT gets a warning, free space is read.

use std::path::Path;

/// What is known about the file system under a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing against it.
    Local,
    /// FAT or exFAT: no journal, a power cut may damage it as a whole.
    Fat,
    /// A network file system, by name.
    Network(&'static str),
}

/// Looks at the file system under `dir`; what cannot be told counts as local.
pub(crate) fn look(dir: &Path) -> Place {
    #[cfg(target_os = "linux")]
    if let Ok(stat) = rustix::fs::statfs(dir) {
        return match classify(stat.f_type as u32) {
            Some(place) => place,
            None if stat.f_type as u32 == FUSE_MAGIC => fuse_place(dir),
            None => Place::Local,
        };
    }
    let _ = dir;
    Place::Local
}

/// Bytes free for this user under `dir`; `u64::MAX` where the system does not tell.
pub(crate) fn free_bytes(dir: &Path) -> u64 {
    #[cfg(unix)]
    if let Ok(stat) = rustix::fs::statvfs(dir) {
        return stat.f_bavail.saturating_mul(stat.f_frsize);
    }
    let _ = dir;
    u64::MAX
}

/// `f_type` of statfs(2), low 32 bits: 32-bit systems sign-extend it.
#[cfg(any(target_os = "linux", test))]
fn classify(magic: u32) -> Option<Place> {
    // Values from linux/magic.h and the statfs(2) manual page.
    Some(match magic {
        0x6969 => Place::Network("NFS"),
        0x517b | 0xfe53_4d42 => Place::Network("SMB"),
        0xff53_4d42 => Place::Network("CIFS"),
        0x5346_414f => Place::Network("AFS"),
        0x7375_7245 => Place::Network("Coda"),
        0x00c3_6400 => Place::Network("Ceph"),
        0x4d44 | 0x2011_bab0 => Place::Fat,
        _ => return None,
    })
}

#[cfg(target_os = "linux")]
const FUSE_MAGIC: u32 = 0x6573_5546;

/// FUSE has one magic for all; the mount table has the name.
#[cfg(target_os = "linux")]
fn fuse_place(dir: &Path) -> Place {
    let Ok(dir) = dir.canonicalize() else { return Place::Local };
    match std::fs::read_to_string("/proc/self/mounts") {
        Ok(mounts) => fuse_kind(&mounts, &dir),
        Err(_) => Place::Local,
    }
}

/// The file system that a mount table names for `dir`: the one mounted deepest above it, the latest of equals.
#[cfg(any(target_os = "linux", test))]
fn fuse_kind(mounts: &str, dir: &Path) -> Place {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(_source), Some(point), Some(kind)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let depth = Path::new(point).components().count();
        if dir.starts_with(point) && best.is_none_or(|(deepest, _)| depth >= deepest) {
            best = Some((depth, kind));
        }
    }
    match best {
        Some((_, "fuse.sshfs")) => Place::Network("sshfs"),
        Some((_, "fuse.rclone")) => Place::Network("rclone"),
        Some((_, "fuse.exfat" | "fuse.exfat-fuse")) => Place::Fat,
        _ => Place::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_and_fat_are_recognised() {
        assert_eq!(classify(0x6969), Some(Place::Network("NFS")));
        assert_eq!(classify(0xff53_4d42), Some(Place::Network("CIFS")));
        assert_eq!(classify(0x4d44), Some(Place::Fat));
        assert_eq!(classify(0xef53), None); // ext4
    }

    #[test]
    fn deepest_mount_decides_for_fuse() {
        let mounts =
            "/dev/sda1 / ext4 rw 0 0\nme@there: /mnt/board fuse.sshfs rw 0 0\n/dev/sdb /data fuse.ntfs rw 0 0\n";
        assert_eq!(fuse_kind(mounts, Path::new("/mnt/board/state")), Place::Network("sshfs"));
        assert_eq!(fuse_kind(mounts, Path::new("/mnt/boards")), Place::Local);
        assert_eq!(fuse_kind(mounts, Path::new("/data/state")), Place::Local);
    }

    #[test]
    fn free_space_is_read() {
        assert!(free_bytes(&std::env::temp_dir()) > 0);
    }
}
