//! Text of DVB tables: which characters the bytes stand for (EN 300 468 annex A).

/// The text, whatever its character table; what this cannot read becomes U+FFFD. Control codes for emphasis are left out, a
/// line break becomes a space.
#[must_use]
pub fn read_text(bytes: &[u8]) -> String {
    match bytes {
        [0x01..=0x0b, rest @ ..] => read_single(rest, LATIN.get(usize::from(bytes[0]) + 3)),
        [0x10, 0, n @ 1..=15, rest @ ..] => read_single(rest, LATIN.get(usize::from(*n) - 1)),
        [0x11, rest @ ..] => {
            let units = rest.as_chunks::<2>().0.iter().map(|unit| u16::from_be_bytes(*unit));
            clean(char::decode_utf16(units).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)))
        }
        [0x15, rest @ ..] => clean(String::from_utf8_lossy(rest).chars()),
        // Korean, Chinese and tables that are yet to be.
        [0x0c..=0x1f, rest @ ..] => read_single(rest, None),
        _ => compose(clean(bytes.iter().map(|byte| from_table(*byte, ISO_6937)))),
    }
}

fn read_single(bytes: &[u8], table: Option<&&str>) -> String {
    clean(bytes.iter().map(|byte| from_table(*byte, table.copied().unwrap_or_default())))
}

/// The lower half is ASCII in all of them.
fn from_table(byte: u8, upper: &str) -> char {
    match byte {
        0x8a => '\n',
        0x00..0xa0 => char::from(byte),
        0xa0.. => upper.chars().nth(usize::from(byte) - 0xa0).unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

fn clean(chars: impl Iterator<Item = char>) -> String {
    let chars = chars.map(|char| if matches!(char, '\n' | '\u{e08a}') { ' ' } else { char });
    chars.filter(|char| !char.is_control() && !matches!(char, '\u{e080}'..='\u{e09f}')).collect()
}

/// Accents stand before their letter here, and behind it in Unicode.
fn compose(text: String) -> String {
    if !text.chars().any(|char| accent(char).is_some()) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut pending = None;
    for char in text.chars() {
        match (pending.take(), accent(char)) {
            (None, None) => out.push(char),
            (before, Some(_)) => {
                out.extend(before);
                pending = Some(char);
            }
            (Some(mark), None) => {
                let composed = accent(mark).and_then(|(letters, with)| with.chars().nth(letters.find(char)?));
                match composed {
                    Some(composed) => out.push(composed),
                    None => out.extend([char, mark]),
                }
            }
        }
    }
    out.extend(pending);
    out
}

/// Letters that there are with this accent, and those.
fn accent(mark: char) -> Option<(&'static str, &'static str)> {
    ACCENTS.iter().find(|accent| accent.0 == mark).map(|(_, letters, with)| (*letters, *with))
}

/// ISO 6937 with the euro sign, from 0xa0 on (EN 300 468 figure A.1).
const ISO_6937: &str = "\u{a0}¡¢£€¥\u{fffd}§¤‘“«←↑→↓°±²³×µ¶·÷’”»¼½¾¿\u{fffd}\u{300}\u{301}\u{302}\u{303}\u{304}\u{306}\u{307}\u{308}\u{fffd}\u{30a}\u{327}\u{fffd}\u{30b}\u{328}\u{30c}―¹®©™♪¬¦\u{fffd}\u{fffd}\u{fffd}\u{fffd}⅛⅜⅝⅞ΩÆĐªĦ\u{fffd}ĲĿŁØŒºÞŦŊŉĸæđðħıĳŀłøœßþŧŋ\u{ad}";

/// Of ISO 6937: a mark, ASCII letters, the same with it.
const ACCENTS: [(char, &str, &str); 13] = [
    ('\u{300}', "aeinouwyAEINOUWY", "àèìǹòùẁỳÀÈÌǸÒÙẀỲ"),
    ('\u{301}', "acegiklmnoprsuwyzACEGIKLMNOPRSUWYZ", "áćéǵíḱĺḿńóṕŕśúẃýźÁĆÉǴÍḰĹḾŃÓṔŔŚÚẂÝŹ"),
    ('\u{302}', "aceghijosuwyzACEGHIJOSUWYZ", "âĉêĝĥîĵôŝûŵŷẑÂĈÊĜĤÎĴÔŜÛŴŶẐ"),
    ('\u{303}', "aeinouvyAEINOUVY", "ãẽĩñõũṽỹÃẼĨÑÕŨṼỸ"),
    ('\u{304}', "aegiouyAEGIOUY", "āēḡīōūȳĀĒḠĪŌŪȲ"),
    ('\u{306}', "aegiouAEGIOU", "ăĕğĭŏŭĂĔĞĬŎŬ"),
    ('\u{307}', "abcdefghmnoprstwxyzABCDEFGHIMNOPRSTWXYZ", "ȧḃċḋėḟġḣṁṅȯṗṙṡṫẇẋẏżȦḂĊḊĖḞĠḢİṀṄȮṖṘṠṪẆẊẎŻ"),
    ('\u{308}', "aehiotuwxyAEHIOUWXY", "äëḧïöẗüẅẍÿÄËḦÏÖÜẄẌŸ"),
    ('\u{30a}', "auwyAU", "åůẘẙÅŮ"),
    ('\u{327}', "cdeghklnrstCDEGHKLNRST", "çḑȩģḩķļņŗşţÇḐȨĢḨĶĻŅŖŞŢ"),
    ('\u{30b}', "ouOU", "őűŐŰ"),
    ('\u{328}', "aeiouAEIOU", "ąęįǫųĄĘĮǪŲ"),
    ('\u{30c}', "acdeghijklnorstuzACDEGHIKLNORSTUZ", "ǎčďěǧȟǐǰǩľňǒřšťǔžǍČĎĚǦȞǏǨĽŇǑŘŠŤǓŽ"),
];

/// ISO 8859-1 to 8859-15 from 0xa0 on; there is no 8859-12.
const LATIN: [&str; 15] = [
    "\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ",
    "\u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žżŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙",
    "\u{a0}Ħ˘£¤\u{fffd}Ĥ§¨İŞĞĴ\u{ad}\u{fffd}Ż°ħ²³´µĥ·¸ışğĵ½\u{fffd}żÀÁÂ\u{fffd}ÄĊĈÇÈÉÊËÌÍÎÏ\u{fffd}ÑÒÓÔĠÖ×ĜÙÚÛÜŬŜßàáâ\u{fffd}äċĉçèéêëìíîï\u{fffd}ñòóôġö÷ĝùúûüŭŝ˙",
    "\u{a0}ĄĸŖ¤ĨĻ§¨ŠĒĢŦ\u{ad}Ž¯°ą˛ŗ´ĩļˇ¸šēģŧŊžŋĀÁÂÃÄÅÆĮČÉĘËĖÍÎĪĐŅŌĶÔÕÖ×ØŲÚÛÜŨŪßāáâãäåæįčéęëėíîīđņōķôõö÷øųúûüũū˙",
    "\u{a0}ЁЂЃЄЅІЇЈЉЊЋЌ\u{ad}ЎЏАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя№ёђѓєѕіїјљњћќ§ўџ",
    "\u{a0}\u{fffd}\u{fffd}\u{fffd}¤\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}،\u{ad}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}؛\u{fffd}\u{fffd}\u{fffd}؟\u{fffd}ءآأؤإئابةتثجحخدذرزسشصضطظعغ\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}ـفقكلمنهوىيًٌٍَُِّْ\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
    "\u{a0}‘’£€₯¦§¨©ͺ«¬\u{ad}\u{fffd}―°±²³΄΅Ά·ΈΉΊ»Ό½ΎΏΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡ\u{fffd}ΣΤΥΦΧΨΩΪΫάέήίΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώ\u{fffd}",
    "\u{a0}\u{fffd}¢£¤¥¦§¨©×«¬\u{ad}®¯°±²³´µ¶·¸¹÷»¼½¾\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}‗אבגדהוזחטיךכלםמןנסעףפץצקרשת\u{fffd}\u{fffd}\u{200e}\u{200f}\u{fffd}",
    "\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞßàáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ",
    "\u{a0}ĄĒĢĪĨĶ§ĻĐŠŦŽ\u{ad}ŪŊ°ąēģīĩķ·ļđšŧž―ūŋĀÁÂÃÄÅÆĮČÉĘËĖÍÎÏÐŅŌÓÔÕÖŨØŲÚÛÜÝÞßāáâãäåæįčéęëėíîïðņōóôõöũøųúûüýþĸ",
    "\u{a0}กขฃคฅฆงจฉชซฌญฎฏฐฑฒณดตถทธนบปผฝพฟภมยรฤลฦวศษสหฬอฮฯะัาำิีึืฺุู\u{fffd}\u{fffd}\u{fffd}\u{fffd}฿เแโใไๅๆ็่้๊๋์ํ๎๏๐๑๒๓๔๕๖๗๘๙๚๛\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
    "",
    "\u{a0}”¢£¤„¦§Ø©Ŗ«¬\u{ad}®Æ°±²³“µ¶·ø¹ŗ»¼½¾æĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽßąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž’",
    "\u{a0}Ḃḃ£ĊċḊ§Ẁ©ẂḋỲ\u{ad}®ŸḞḟĠġṀṁ¶ṖẁṗẃṠỳẄẅṡÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏŴÑÒÓÔÕÖṪØÙÚÛÜÝŶßàáâãäåæçèéêëìíîïŵñòóôõöṫøùúûüýŷÿ",
    "\u{a0}¡¢£€¥Š§š©ª«¬\u{ad}®¯°±²³Žµ¶·ž¹º»ŒœŸ¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_table_reads_its_own_letters() {
        assert_eq!(read_text(b"France 2"), "France 2");
        assert_eq!(read_text(b"Qu\xc2ebec TV"), "Québec TV");
        assert_eq!(read_text(b"\x15Qu\xc3\xa9bec TV"), "Québec TV");
        assert_eq!(read_text(b"\x05T\xfcrk\xfe"), "Türkş");
        assert_eq!(read_text(b"\x01\xbf\xd5\xe0\xd2\xeb\xd9"), "Первый");
        assert_eq!(read_text(b"\x10\x00\x02\xa3\xf3d\xbc"), "Łódź");
        assert_eq!(read_text(b"\x11\x04\x1f\x00A"), "ПA");
        assert_eq!(read_text(b"Z\xc8urich \x86HD\x87\x8anow"), "Zürich HD now");
    }

    #[test]
    fn what_cannot_be_read_is_marked() {
        assert_eq!(read_text(b"\x12\xb0\xa1A"), "\u{fffd}\u{fffd}A");
        assert_eq!(read_text(b"\x11\xd8\x00"), "\u{fffd}");
        assert_eq!(read_text(b"x\xc2"), "x\u{301}");
        assert_eq!(read_text(b""), "");
    }

    proptest! {
        #[test]
        fn any_bytes_become_text_without_controls(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let text = read_text(&bytes);
            prop_assert!(text.len() <= 3 * bytes.len() + 3);
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
