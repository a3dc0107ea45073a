//! Files of a site: which path names which file, and which names none.
//!
//! A site is a folder that the operator named. What a page asks for is hostile: only regular files within the folder are read, whatever
//! a path, an escape or a symbolic link says.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Largest file that a page gets.
const LARGEST: u64 = 16 << 20;

/// A site's origin, with the slash that begins its paths.
pub(super) fn origin(name: &str) -> String {
    format!("https://{name}.test/")
}

/// The URL of a file of a site.
pub(super) fn url(name: &str, path: &str) -> String {
    let mut url = origin(name);
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                url.push(char::from(byte));
            }
            _ => {
                url.push('%');
                url.extend([byte >> 4, byte & 15].map(|half| {
                    char::from_digit(half.into(), 16)
                        .map_or('0', |digit| digit.to_ascii_uppercase())
                }));
            }
        }
    }
    url
}

/// A URL's path without its escapes. What is not UTF-8 becomes U+FFFD, which names no file.
pub(super) fn decode(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        rest = match escaped {
            Some(byte) => {
                bytes.push(byte);
                &tail[2..]
            }
            None => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A file of a site, and its content type; or why there is none.
pub(super) fn read(folder: &Path, path: &str) -> Result<(&'static str, Vec<u8>), String> {
    let file = find(folder, path)?;
    let unreadable = |error: std::io::Error| format!("it cannot be read: {error}");
    let mut content = Vec::new();
    fs::File::open(&file)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut content))
        .map_err(unreadable)?;
    if content.len() as u64 > LARGEST {
        return Err(format!("it has more than {} MiB", LARGEST >> 20));
    }
    Ok((content_type(&file), content))
}

/// The file that a path of a site names; a folder names its `index.html`.
pub(super) fn find(folder: &Path, path: &str) -> Result<PathBuf, String> {
    let mut file = folder.to_owned();
    let index = if path.is_empty() || path.ends_with('/') {
        "index.html"
    } else {
        ""
    };
    for part in format!("{path}{index}").split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return Err("a path is names with `/` between them, without `.` and `..`".to_owned());
        }
        if part.starts_with('.') {
            return Err("hidden files are not part of a site".to_owned());
        }
        if part.contains(['\0', '\\']) {
            return Err("a name has no NUL and no backslash".to_owned());
        }
        file.push(part);
    }
    let missing = |_| "there is no such file".to_owned();
    let folder = folder.canonicalize().map_err(missing)?;
    let file = file.canonicalize().map_err(missing)?;
    let Ok(within) = file.strip_prefix(&folder) else {
        return Err("it leads out of the site's folder".to_owned());
    };
    if within
        .components()
        .any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
    {
        return Err("hidden files are not part of a site".to_owned());
    }
    // Anything but a regular file may block for ever.
    if !file.is_file() {
        return Err("it is no regular file".to_owned());
    }
    Ok(file)
}

fn content_type(file: &Path) -> &'static str {
    let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
    match extension.to_str().unwrap_or_default() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "xml" => "text/xml; charset=utf-8",
        "xhtml" => "application/xhtml+xml",
        "csv" => "text/csv; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "wasm" => "application/wasm",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "ogg" => "audio/ogg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_within_the_folder_are_found() {
        let base = tempfile::tempdir().unwrap();
        let site = base.path().join("site");
        fs::create_dir_all(site.join("deep/er")).unwrap();
        fs::create_dir_all(site.join(".git")).unwrap();
        fs::write(base.path().join("secret.txt"), "s").unwrap();
        for file in [
            "index.html",
            "deep/er/a.js",
            ".env",
            ".git/config",
            "ä b.txt",
        ] {
            fs::write(site.join(file), "x").unwrap();
        }
        symlink("deep/er/a.js", site.join("inside.js")).unwrap();
        symlink("../secret.txt", site.join("outside.txt")).unwrap();
        symlink("/etc", site.join("etc")).unwrap();
        symlink(".env", site.join("env.txt")).unwrap();
        symlink("loop", site.join("loop")).unwrap();
        for path in ["index.html", "", "deep/er/a.js", "ä b.txt", "inside.js"] {
            assert!(find(&site, path).is_ok(), "{path}: {:?}", find(&site, path));
        }
        for path in [
            "../secret.txt",
            "deep/../../secret.txt",
            "deep/../index.html",
            "./index.html",
            "/index.html",
            "//etc/passwd",
            "/etc/passwd",
            "deep//er/a.js",
            "..\\secret.txt",
            ".env",
            ".git/config",
            "deep/",
            "deep",
            "outside.txt",
            "etc/passwd",
            "env.txt",
            "loop",
            "nothing.html",
            "index.html\0.png",
            "...",
        ] {
            assert!(find(&site, path).is_err(), "{path}");
        }
        for escaped in [
            "..%2fsecret.txt",
            "%2e%2e/secret.txt",
            "%2e%2e%2fsecret.txt",
            "deep%2f..%2f..%2fsecret.txt",
            "%2fetc%2fpasswd",
            "%2eenv",
            "index.html%00",
            "..%5csecret.txt",
        ] {
            assert!(find(&site, &decode(escaped)).is_err(), "{escaped}");
        }
    }

    #[test]
    fn a_pipe_in_a_site_is_no_file_of_it() {
        let site = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(site.path().join("pipe.html"))
            .status();
        assert!(made.unwrap().success());
        let why = find(site.path(), "pipe.html").unwrap_err();
        assert_eq!(why, "it is no regular file");
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let site = tempfile::tempdir().unwrap();
        let file = fs::File::create(site.path().join("a.bin")).unwrap();
        file.set_len(LARGEST).unwrap();
        assert!(read(site.path(), "a.bin").is_ok());
        file.set_len(LARGEST + 1).unwrap();
        let why = read(site.path(), "a.bin").unwrap_err();
        assert_eq!(why, "it has more than 16 MiB");
    }

    #[test]
    fn what_a_url_says_is_what_is_decoded() {
        for path in ["a.html", "ä/b c?d#e%41.js", "100%", "%", "%4", "%zz", "+"] {
            let url = url("shop", path);
            let escaped = url.strip_prefix("https://shop.test/").unwrap();
            assert!(!escaped.contains(['?', '#', ' ']), "{escaped}");
            assert_eq!(decode(escaped), path);
        }
        assert_eq!(decode("%41%zz%4"), "A%zz%4");
        assert_eq!(decode("%ff"), "\u{fffd}");
    }
}
