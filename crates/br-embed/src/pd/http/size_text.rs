/// A size as PD writes it: four digits and a binary unit, `355.7MiB`.
pub(super) fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut scale = 1_u128;
    while unit + 1 < UNITS.len() && u128::from(bytes) >= scale * 1024 {
        scale *= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    let whole = u128::from(bytes) / scale;
    let decimals: u32 = match whole {
        1000.. => 0,
        100.. => 1,
        10.. => 2,
        _ => 3,
    };
    let power = 10_u128.pow(decimals);
    let rounded = (u128::from(bytes) * power + scale / 2) / scale;
    let (whole, fraction) = (rounded / power, rounded % power);
    if fraction == 0 {
        return format!("{whole}{name}");
    }
    let digits = format!("{fraction:0width$}", width = decimals as usize);
    format!("{whole}.{}{name}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_pd_writes_them() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1536, "1.5KiB"),
            (270_553_174_016, "252GiB"),
            (60_303_163_392, "56.16GiB"),
            (372_978_483, "355.7MiB"),
            (u64::MAX, "16EiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}
