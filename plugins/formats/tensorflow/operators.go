package tensorflow

import (
	"github.com/cavra/cavra/plugins/formats/protowire"
	"github.com/cavra/cavra/plugins/formats/window"
)

// rules are the operators that do more than compute, by the rule that each
// meets. An operator is one of TensorFlow's own (ops.txt) or custom.
var rules = map[string]string{
	"PyFunc": "tf.op.python", "PyFuncStateless": "tf.op.python", "EagerPyFunc": "tf.op.python",

	"WriteFile": "tf.op.file.write", "SaveDataset": "tf.op.file.write", "SaveDatasetV2": "tf.op.file.write",
	"DistributedSave": "tf.op.file.write", "DatasetToTFRecord": "tf.op.file.write", "ExperimentalDatasetToTFRecord": "tf.op.file.write",
	"CreateSummaryFileWriter": "tf.op.file.write", "CreateSummaryDbWriter": "tf.op.file.write",
	"SnapshotDataset": "tf.op.file.write", "SnapshotDatasetV2": "tf.op.file.write", "CacheDataset": "tf.op.file.write", "CacheDatasetV2": "tf.op.file.write",
	"FileSystemSetConfiguration": "tf.op.file.write",

	"ReadFile": "tf.op.file.read", "MatchingFiles": "tf.op.file.read", "MatchingFilesDataset": "tf.op.file.read",
	"ExperimentalMatchingFilesDataset": "tf.op.file.read", "WholeFileReader": "tf.op.file.read", "WholeFileReaderV2": "tf.op.file.read",
	"TextLineReader": "tf.op.file.read", "TextLineReaderV2": "tf.op.file.read", "TFRecordReader": "tf.op.file.read", "TFRecordReaderV2": "tf.op.file.read",
	"FixedLengthRecordReader": "tf.op.file.read", "FixedLengthRecordReaderV2": "tf.op.file.read", "LMDBReader": "tf.op.file.read",
	"TextLineDataset": "tf.op.file.read", "TFRecordDataset": "tf.op.file.read", "TFRecordDatasetV2": "tf.op.file.read",
	"FixedLengthRecordDataset": "tf.op.file.read", "FixedLengthRecordDatasetV2": "tf.op.file.read",
	"CSVDataset": "tf.op.file.read", "CSVDatasetV2": "tf.op.file.read", "ExperimentalCSVDataset": "tf.op.file.read",
	"LMDBDataset": "tf.op.file.read", "ExperimentalLMDBDataset": "tf.op.file.read", "LoadDataset": "tf.op.file.read",
	"SqlDataset": "tf.op.file.read", "ExperimentalSqlDataset": "tf.op.file.read", "SnapshotDatasetReader": "tf.op.file.read",
	"ListSnapshotChunksDataset": "tf.op.file.read", "LoadAndRemapMatrix": "tf.op.file.read", "GenerateVocabRemapping": "tf.op.file.read",

	"RpcServer": "tf.op.network", "RpcServerStart": "tf.op.network", "RpcServerRegister": "tf.op.network",
	"RpcClient": "tf.op.network", "RpcCall": "tf.op.network", "RemoteCall": "tf.op.network",
	"DataServiceDataset": "tf.op.network", "DataServiceDatasetV2": "tf.op.network", "DataServiceDatasetV3": "tf.op.network", "DataServiceDatasetV4": "tf.op.network",
	"RegisterDataset": "tf.op.network", "RegisterDatasetV2": "tf.op.network",
}

// native are operators that call what is registered in native code by a name.
var native = map[string]bool{"XlaCustomCall": true, "XlaCustomCallV2": true}

// internal are operators that TensorFlow writes into graphs itself and that no
// program can ask for.
var internal = map[string]bool{
	"_Arg": true, "_Retval": true, "_DeviceArg": true, "_DeviceRetval": true, "_Send": true, "_Recv": true, "_HostSend": true, "_HostRecv": true,
	"_ListToArray": true, "_ArrayToList": true, "_ParallelConcatStart": true, "_ParallelConcatUpdate": true, "_If": true, "_While": true,
	"_FusedConv2D": true, "_FusedMatMul": true, "_FusedBatchNormEx": true, "_FusedDepthwiseConv2dNative": true, "_HostConst": true, "HostConst": true,
}

// pathInputs are operators whose first input is a path. A graph that was saved
// gets it from the caller. Tables that are read from text files are not among
// them: their path is an asset's, which the loader puts in its place.
var pathInputs = map[string]bool{
	"Save": true, "SaveV2": true, "SaveSlices": true, "Restore": true, "RestoreV2": true, "RestoreSlice": true, "MergeV2Checkpoints": true,
	"ShardedFilename": true, "ShardedFilespec": true, "ReadFile": true, "WriteFile": true, "MatchingFiles": true,
	"TextLineDataset": true, "TFRecordDataset": true, "TFRecordDatasetV2": true, "FixedLengthRecordDataset": true,
	"FixedLengthRecordDatasetV2": true, "MatchingFilesDataset": true, "LoadDataset": true, "SaveDataset": true, "SaveDatasetV2": true,
}

// passing are operators whose first input decides a path that they give on.
var passing = map[string]bool{
	"Identity": true, "PlaceholderWithDefault": true, "ShardedFilename": true, "ShardedFilespec": true, "StringJoin": true, "Reshape": true,
	"Pack": true, "ExpandDims": true, "Squeeze": true, "Select": true, "StringStrip": true, "_Arg": true, "IdentityN": true,
}

// JudgeOperator is the rule that an operator of a name meets, or nothing: for
// formats that carry TensorFlow's operators along.
func JudgeOperator(op string) string {
	switch {
	case rules[op] != "":
		return rules[op]
	case native[op] || !known()[op] && !internal[op]:
		return "tf.op.custom"
	}
	return ""
}

// NodeOperator reads the operator of a node (NodeDef) that lies in [start, end).
// It is empty when the bytes are none.
func NodeOperator(w *window.Reader, start, end int64) (string, error) {
	s, err := schema()
	if err != nil {
		return "", err
	}
	o, err := protowire.ReadOutline(w, s["NodeDef"], start, end)
	at, ok := o.Last["op"]
	if err != nil || !o.Known || !o.Whole || !ok {
		return "", err
	}
	return protowire.ReadText(w, at[0], at[1], maxText)
}
