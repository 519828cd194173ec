//! The manual pages of ipvsadm(8), ipvsadm-save(8) and ipvsadm-restore(8), from the same
//! table of words that the parser reads. lvx(1) comes from clap.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::adm::help::{FORMS, usage};
use crate::adm::words::{Meaning, WORDS};

/// Writes the pages into `directory`.
pub fn write_to(directory: &Path) -> io::Result<()> {
    fs::write(directory.join("ipvsadm.8"), ipvsadm())?;
    fs::write(directory.join("ipvsadm-save.8"), SAVE)?;
    fs::write(directory.join("ipvsadm-restore.8"), RESTORE)
}

const SAVE: &str = "\
.TH ipvsadm-save 8 \"\" lvx
.SH NAME
ipvsadm-save \\- print the table of virtual services
.SH SYNOPSIS
.B ipvsadm-save
[\\-n]
.SH DESCRIPTION
Prints every virtual service and real server as lines that
.BR ipvsadm-restore (8)
reads. Thresholds are not among them.
.TP
.B \\-n
Numbers, not names.
.SH SEE ALSO
.BR ipvsadm (8)
";

const RESTORE: &str = "\
.TH ipvsadm-restore 8 \"\" lvx
.SH NAME
ipvsadm-restore \\- replace the table of virtual services
.SH SYNOPSIS
.B ipvsadm-restore
<
.I FILE
.SH DESCRIPTION
Removes every virtual service, then carries out the lines on standard input, as
.BR ipvsadm-save (8)
writes them. Lines that begin with # count for nothing.
.SH SEE ALSO
.BR ipvsadm (8)
";

/// A title and which words come under it.
type Section = (&'static str, fn(Meaning) -> bool);

fn ipvsadm() -> String {
    let mut page = String::from(
        ".TH ipvsadm 8 \"\" lvx\n\
         .SH NAME\n\
         ipvsadm \\- virtual services and real servers of lvx\n\
         .SH SYNOPSIS\n",
    );
    for form in FORMS {
        let _ = writeln!(page, ".B ipvsadm\n{}\n.br", escaped(form));
    }
    page.push_str(
        ".SH DESCRIPTION\n\
         Speaks the grammar of ipvsadm 1.31 to the lvx director that serves the socket\n\
         .I LVX_API\n\
         names, or else\n\
         .IR /run/lvx/lvx.sock .\n\
         SERVICE is one of \\-t, \\-u and \\-\\-sctp\\-service with HOST[:PORT], or \\-f with a mark.\n",
    );
    let sections: [Section; 2] = [
        ("COMMANDS", |meaning| matches!(meaning, Meaning::Verb(_))),
        ("OPTIONS", |meaning| matches!(meaning, Meaning::Flag(_))),
    ];
    for (title, wanted) in sections {
        let _ = writeln!(page, ".SH {title}");
        for word in WORDS.iter().filter(|word| wanted(word.meaning)) {
            let name = escaped(usage(word).trim_start());
            let _ = writeln!(page, ".TP\n.B {name}\n{}", escaped(word.help));
        }
    }
    page.push_str(
        ".SH EXIT STATUS\n\
         0 where all was done; 1 a listing failed; 2 the line makes no sense or no director\n\
         answers; 255 it was refused.\n\
         .SH EXAMPLE\n\
         .nf\n\
         ipvsadm \\-A \\-t 10.1.0.1:80 \\-s wlc\n\
         ipvsadm \\-a \\-t 10.1.0.1:80 \\-r 10.2.0.11:80 \\-m\n\
         ipvsadm \\-L \\-n\n\
         .fi\n\
         .SH SEE ALSO\n\
         .BR lvx (1),\n\
         .BR ipvsadm-save (8),\n\
         .BR ipvsadm-restore (8)\n",
    );
    page
}

/// troff takes a bare dash for a hyphen and a leading dot or quote for a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_place_in_the_page() {
        let page = ipvsadm();
        for word in WORDS {
            let name = format!("\\-\\-{}", word.long.replace('-', "\\-"));
            assert!(page.contains(&name), "{}", word.long);
        }
        assert_eq!(escaped(".a-b\\c"), "\\&.a\\-b\\ec");
    }
}
