//! Raw bytes as hexadecimal digits, which every form of body can carry; the load's `columns` header decodes them. Pure.
//! The worker does it, not the source: `HEX()` of MySQL gives NULL for what would pass `max_allowed_packet`, and twice the
//! bytes would come over the network.

use starlift_common::row::{Row, RowBuffer};

use super::EncodeError;

/// Two digits for each byte.
const DIGITS: [[u8; 2]; 256] = {
    let letters = b"0123456789ABCDEF";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [letters[byte >> 4], letters[byte & 15]];
        byte += 1;
    }
    table
};

/// The row with these columns, given in order, as digits. Only rows with raw bytes pay for it.
pub(super) fn with_digits(row: &Row<'_>, columns: &[usize]) -> Result<RowBuffer, EncodeError> {
    let mut written = RowBuffer::default();
    let mut digits = Vec::new();
    let mut waiting = columns.iter().peekable();
    for (column, cell) in row.cells().enumerate() {
        let is_hex = waiting.next_if(|hex| **hex == column).is_some();
        let cell = match cell {
            Some(bytes) if is_hex => {
                digits.clear();
                digits.reserve(2 * bytes.len());
                digits.extend(bytes.iter().flat_map(|byte| DIGITS[usize::from(*byte)]));
                Some(digits.as_slice())
            }
            other => other,
        };
        if !written.push(cell) {
            return Err(EncodeError::TooLong { column });
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Cells, buffer};
    use super::*;

    #[test]
    fn only_the_named_columns_become_digits_and_null_stays_null() {
        let all: Vec<u8> = (0..=255).collect();
        let row: Cells = vec![Some(all.clone()), Some(vec![0xff]), None, Some(vec![]), Some(vec![0, 0xab])];
        let written = with_digits(&buffer(&row).row(), &[0, 2, 3, 4]).expect("short enough");
        let digits: String = all.iter().map(|byte| format!("{byte:02X}")).collect();
        let cells: Vec<_> = written.row().cells().map(|cell| cell.map(<[u8]>::to_vec)).collect();
        assert_eq!(
            cells,
            [Some(digits.into_bytes()), Some(vec![0xff]), None, Some(b"".to_vec()), Some(b"00AB".to_vec())]
        );
    }
}
