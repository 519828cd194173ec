//! The lines of `-R`. ipvsadm knows neither quotes nor comments nor escapes there.

/// The words of a line; an `ipvsadm` among them counts for nothing, a word ends at a zero
/// byte.
pub fn words(line: &[u8]) -> Vec<String> {
    line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
        .filter(|word| !word.is_empty() && *word != b"ipvsadm")
        .map(|word| {
            let end = word.iter().position(|&byte| byte == 0);
            String::from_utf8_lossy(&word[..end.unwrap_or(word.len())]).into_owned()
        })
        .collect()
}
