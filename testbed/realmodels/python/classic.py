"""Save models with the frameworks of classic machine learning in the folder that is named.

Each object is written with pickle in protocols 2 and 4, and with joblib plain and
compressed. A framework that is not installed is said so and left out.
"""
import collections
import datetime
import decimal
import fractions
import inspect
import pathlib
import pickle
import re
import sys
import uuid
import warnings

import joblib
import numpy as np
import pandas as pd
import scipy.interpolate
import scipy.sparse
import scipy.spatial
import scipy.stats
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

warnings.filterwarnings("ignore")
OUT = pathlib.Path(sys.argv[1])
X, Y = make_classification(n_samples=60, n_features=6, n_informative=4, random_state=0)
written, left_out = 0, []


def dump(name, value):
    """Write one object in each way; what cannot be written is left out."""
    global written
    writers = {
        "p2.pkl": lambda p: p.write_bytes(pickle.dumps(value, 2)),
        "p4.pkl": lambda p: p.write_bytes(pickle.dumps(value, 4)),
        "joblib": lambda p: joblib.dump(value, p),
        "z.joblib": lambda p: joblib.dump(value, p, compress=3),
    }
    for suffix, write in writers.items():
        try:
            write(OUT / f"{name}.{suffix}")
            written += 1
        except Exception as e:
            (OUT / f"{name}.{suffix}").unlink(missing_ok=True)
            left_out.append(f"{name}.{suffix}: {e}")


def settings(name, cls):
    """Arguments for the parameters of an estimator that have no default."""
    has = inspect.signature(cls.__init__).parameters
    regression = name.endswith("Regressor") or name.startswith("Regress")
    one = Ridge() if regression else LogisticRegression()
    given = {
        "estimator": one, "base_estimator": one,
        "estimators": [("a", one)] if regression else [("a", one), ("b", DecisionTreeClassifier())],
        "param_grid": {"alpha": [0.1, 1]} if regression else {"C": [0.1, 1]},
        "param_distributions": {"alpha": [0.1, 1]} if regression else {"C": [0.1, 1]},
        "steps": [("s", StandardScaler()), ("c", LogisticRegression())],
        "transformers": [("a", StandardScaler(), [0, 1]), ("b", MinMaxScaler(), [2])],
        "transformer_list": [("a", StandardScaler())], "n_estimators": 3, "dictionary": np.eye(6),
    }
    return {k: v for k, v in given.items() if k in has}


def fit(model):
    """Fit on the first data that the model takes; an unfitted one is one too."""
    words, records = ["a b", "b c", "c d a"] * 20, [{"a": 1}, {"b": 2}] * 30
    for data in ((np.abs(X), Y), (words, Y), (records, Y), (np.abs(X),)):
        try:
            return model.fit(*data)
        except Exception:
            continue
    return model


def scikit_learn():
    for name, cls in all_estimators():
        try:
            dump("sklearn_" + name, fit(cls(**settings(name, cls))))
        except Exception as e:
            left_out.append(f"{name}: {e}")
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    dump("sklearn_frame", ColumnTransformer([("a", StandardScaler(), ["a"]), ("b", OneHotEncoder(), ["b"])]).fit(frame))
    dump("sklearn_function", FunctionTransformer(np.log1p))


def tables():
    f = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"], "c": pd.Categorical(["u", "v", "u"]), "d": pd.date_range("2020", periods=3)})
    for name, value in {"frame": f, "series": f.a, "multi": f.set_index(["a", "b"]), "category": f.c, "time": pd.Timestamp("2020"),
                        "period": pd.period_range("2020", periods=3), "interval": pd.interval_range(0, 3),
                        "string": f.b.astype("string"), "integer": f.a.astype("Int64"), "delta": pd.to_timedelta([1, 2])}.items():
        dump("pandas_" + name, value)


def arrays():
    for kind in "csr csc coo bsr dia dok lil".split():
        dump("scipy_" + kind, getattr(scipy.sparse, kind + "_matrix")(np.eye(4)))
        dump("scipy_array_" + kind, getattr(scipy.sparse, kind + "_array")(np.eye(4)))
    i, x = scipy.interpolate, np.arange(9.0)
    for name, value in {"interp1d": i.interp1d(x, x), "cubic": i.CubicSpline(x, x), "spline": i.UnivariateSpline(x, x),
                        "rbf": i.RBFInterpolator(X[:, :2], Y), "bspline": i.make_interp_spline(x, x),
                        "grid": i.RegularGridInterpolator((x[:3], x[:3]), np.eye(3)), "pchip": i.PchipInterpolator(x, x),
                        "norm": scipy.stats.norm(0, 1), "kde": scipy.stats.gaussian_kde(x), "ckdtree": scipy.spatial.cKDTree(X),
                        "kdtree": scipy.spatial.KDTree(X), "rotation": scipy.spatial.transform.Rotation.identity()}.items():
        dump("scipy_" + name, value)
    for g in "MT19937 PCG64 PCG64DXSM Philox SFC64".split():
        dump("numpy_" + g, np.random.Generator(getattr(np.random, g)(1)))
    for name, value in {"randomstate": np.random.RandomState(1), "objects": np.array([1, "a", None], dtype=object),
                        "fields": np.zeros(3, dtype=[("a", "f4"), ("b", "i2")]), "masked": np.ma.masked_array([1, 2], [0, 1]),
                        "scalars": [np.float64(1), np.int32(2), np.bool_(1), np.str_("a"), np.datetime64("2020")],
                        "matrix": np.matrix(np.eye(2)), "records": np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
                        "polynomial": np.polynomial.Polynomial([1, 2]), "functions": [np.log, np.exp, np.mean],
                        "large": {"a": np.arange(100000.0), "b": [np.arange(50000, dtype="i4"), "x"], "e": np.array([], dtype="f4")}}.items():
        dump("numpy_" + name, value)


def values():
    dump("python", [datetime.datetime.now(datetime.timezone.utc), decimal.Decimal("1.1"), fractions.Fraction(1, 3), uuid.UUID(int=1),
                    collections.Counter("aab"), collections.deque([1], 3), collections.defaultdict(list, a=[1]), pathlib.PurePosixPath("a/b"),
                    re.compile("a+"), range(3), slice(1, 2), {1}, frozenset([2]), complex(1, 2), bytearray(b"a"), b"abc", ValueError("x"), len])


def statsmodels():
    import statsmodels.api as sm
    import statsmodels.formula.api as smf
    dump("statsmodels_ols", sm.OLS(Y, sm.add_constant(X)).fit())
    dump("statsmodels_glm", sm.GLM(Y, X, family=sm.families.Binomial()).fit())
    dump("statsmodels_logit", sm.Logit(Y, X[:, :2]).fit(disp=0))
    dump("statsmodels_arima", sm.tsa.ARIMA(X[:, 0], order=(1, 0, 0)).fit())
    dump("statsmodels_formula", smf.ols("a ~ b", pd.DataFrame({"a": X[:, 0], "b": X[:, 1]})).fit())


def boosting():
    import lightgbm as lgb
    import xgboost as xgb
    from catboost import CatBoostClassifier, CatBoostRegressor
    for name in "XGBClassifier XGBRegressor XGBRFClassifier".split():
        dump("xgboost_" + name, getattr(xgb, name)(n_estimators=3).fit(X, Y))
    dump("xgboost_booster", xgb.train({}, xgb.DMatrix(X, Y), 3))
    for name in "LGBMClassifier LGBMRegressor".split():
        dump("lightgbm_" + name, getattr(lgb, name)(n_estimators=3, verbose=-1).fit(X, Y))
    dump("lightgbm_booster", lgb.train({"verbose": -1}, lgb.Dataset(X, Y), 3))
    for cls in CatBoostClassifier, CatBoostRegressor:
        dump("catboost_" + cls.__name__, cls(iterations=3, verbose=0, allow_writing_files=False).fit(X, Y))


OUT.mkdir(parents=True, exist_ok=True)
for part in scikit_learn, tables, arrays, values, statsmodels, boosting:
    try:
        part()
    except Exception as e:
        left_out.append(f"{part.__name__}: {e}")
print(written, "files")
print(*left_out, sep="\n")
