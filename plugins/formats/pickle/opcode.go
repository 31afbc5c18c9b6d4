package pickle

// The opcodes of protocols 0 to 5, as CPython's Lib/pickle.py names them.
const (
	opMark           = '('
	opStop           = '.'
	opPop            = '0'
	opPopMark        = '1'
	opDup            = '2'
	opFloat          = 'F'
	opInt            = 'I'
	opBinInt         = 'J'
	opBinInt1        = 'K'
	opLong           = 'L'
	opBinInt2        = 'M'
	opNone           = 'N'
	opPersID         = 'P'
	opBinPersID      = 'Q'
	opReduce         = 'R'
	opString         = 'S'
	opBinString      = 'T'
	opShortBinString = 'U'
	opUnicode        = 'V'
	opBinUnicode     = 'X'
	opAppend         = 'a'
	opBuild          = 'b'
	opGlobal         = 'c'
	opDict           = 'd'
	opEmptyDict      = '}'
	opAppends        = 'e'
	opGet            = 'g'
	opBinGet         = 'h'
	opInst           = 'i'
	opLongBinGet     = 'j'
	opList           = 'l'
	opEmptyList      = ']'
	opObj            = 'o'
	opPut            = 'p'
	opBinPut         = 'q'
	opLongBinPut     = 'r'
	opSetItem        = 's'
	opTuple          = 't'
	opEmptyTuple     = ')'
	opSetItems       = 'u'
	opBinFloat       = 'G'

	opProto    = 0x80
	opNewObj   = 0x81
	opExt1     = 0x82
	opExt2     = 0x83
	opExt4     = 0x84
	opTuple1   = 0x85
	opTuple2   = 0x86
	opTuple3   = 0x87
	opNewTrue  = 0x88
	opNewFalse = 0x89
	opLong1    = 0x8a
	opLong4    = 0x8b

	opBinBytes      = 'B'
	opShortBinBytes = 'C'

	opShortBinUnicode = 0x8c
	opBinUnicode8     = 0x8d
	opBinBytes8       = 0x8e
	opEmptySet        = 0x8f
	opAddItems        = 0x90
	opFrozenSet       = 0x91
	opNewObjEx        = 0x92
	opStackGlobal     = 0x93
	opMemoize         = 0x94
	opFrame           = 0x95

	opByteArray8     = 0x96
	opNextBuffer     = 0x97
	opReadonlyBuffer = 0x98
)

// highestProtocol is the last that CPython knows.
const highestProtocol = 5

// argument is the form of an opcode's argument.
type argument uint8

const (
	argUnknown argument = iota // no opcode
	argNone
	argU1
	argU2
	argU4
	argI4
	argF8
	argLine   // up to a newline
	argLines  // two lines
	argCount1 // a length of 1, 4 or 8 bytes, little endian, and as many bytes
	argCount4
	argCount4Signed
	argCount8
	argFrame // a length of 8 bytes; what it counts is opcodes
)

// arguments gives each opcode's argument form.
var arguments = [256]argument{
	opMark: argNone, opStop: argNone, opPop: argNone, opPopMark: argNone, opDup: argNone,
	opFloat: argLine, opInt: argLine, opBinInt: argI4, opBinInt1: argU1, opLong: argLine, opBinInt2: argU2,
	opNone: argNone, opPersID: argLine, opBinPersID: argNone, opReduce: argNone,
	opString: argLine, opBinString: argCount4Signed, opShortBinString: argCount1,
	opUnicode: argLine, opBinUnicode: argCount4, opAppend: argNone, opBuild: argNone,
	opGlobal: argLines, opDict: argNone, opEmptyDict: argNone, opAppends: argNone,
	opGet: argLine, opBinGet: argU1, opInst: argLines, opLongBinGet: argU4,
	opList: argNone, opEmptyList: argNone, opObj: argNone,
	opPut: argLine, opBinPut: argU1, opLongBinPut: argU4,
	opSetItem: argNone, opTuple: argNone, opEmptyTuple: argNone, opSetItems: argNone, opBinFloat: argF8,
	opProto: argU1, opNewObj: argNone, opExt1: argU1, opExt2: argU2, opExt4: argI4,
	opTuple1: argNone, opTuple2: argNone, opTuple3: argNone, opNewTrue: argNone, opNewFalse: argNone,
	opLong1: argCount1, opLong4: argCount4Signed,
	opBinBytes: argCount4, opShortBinBytes: argCount1,
	opShortBinUnicode: argCount1, opBinUnicode8: argCount8, opBinBytes8: argCount8,
	opEmptySet: argNone, opAddItems: argNone, opFrozenSet: argNone, opNewObjEx: argNone,
	opStackGlobal: argNone, opMemoize: argNone, opFrame: argFrame,
	opByteArray8: argCount8, opNextBuffer: argNone, opReadonlyBuffer: argNone,
}
