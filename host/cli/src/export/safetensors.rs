//! A head's numbers as safetensors: length of the header u64, header as JSON, padded with spaces to 8 bytes, data.
//!
//! Format: github.com/huggingface/safetensors, README, "Format".

use serde_json::{Map, Value, json};

use super::{Dtype, Exported};

/// The bytes of the file.
pub fn safetensors(head: &Exported<'_>) -> Vec<u8> {
    let mut header = Map::new();
    let metadata: Map<String, Value> =
        head.metadata.iter().map(|(key, text)| ((*key).to_owned(), text.clone().into())).collect();
    header.insert("__metadata__".into(), metadata.into());
    let mut data: Vec<u8> = Vec::new();
    for (name, dtype, shape, bytes) in head.arrays() {
        let dtype = match dtype {
            Dtype::F32 => "F32",
            Dtype::F64 => "F64",
        };
        let end = data.len() + bytes.len();
        header.insert(name.into(), json!({"dtype": dtype, "shape": shape, "data_offsets": [data.len(), end]}));
        data.extend(bytes);
    }
    let mut text = Value::from(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend(text);
    file.extend(data);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_wire::message::HeadChoice;

    #[test]
    fn the_header_says_where_the_numbers_lie() {
        let head = super::super::tests::head(HeadChoice::Ncm);
        let file = safetensors(&Exported::of(&head, "ncm").unwrap());
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
        assert_eq!(length % 8, 0);
        assert_eq!(header["__metadata__"]["labels"], r#"["a \"b\"","ü"]"#);
        let centre = &header["centre"];
        assert_eq!((&centre["dtype"], &centre["shape"]), (&json!("F64"), &json!([3])));
        assert_eq!(header["matrix"]["shape"], json!([2, 3]));
        let end = header["matrix"]["data_offsets"][1].as_u64().unwrap() as usize;
        assert_eq!(8 + length + end, file.len());
    }
}
