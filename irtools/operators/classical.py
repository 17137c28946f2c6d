"""Operators of classical machine learning (ai.onnx.ml): scalers, encoders, linear models, forests.

Their parameters are attributes. What comes before a network (a scaler of its features) must have a
shape, or nothing after it has one.
"""

from __future__ import annotations

from irtools.operators.op import Kind, Op

__all__ = ["CLASSICAL"]

_ML = "ai.onnx.ml"

CLASSICAL: tuple[Op, ...] = (
    Op("Binarizer", _ML, kind=Kind.UNARY),
    *(Op(name, _ML, kind=Kind.NORMALIZATION) for name in ("Imputer", "Normalizer", "Scaler")),
    *(Op(name, _ML, kind=Kind.SEQUENCE) for name in ("CastMap", "DictVectorizer", "ZipMap")),
    *(
        Op(name, _ML)
        for name in (
            *("ArrayFeatureExtractor", "CategoryMapper", "FeatureVectorizer", "LabelEncoder"),
            *("LinearClassifier", "LinearRegressor", "OneHotEncoder", "SVMClassifier"),
            *("SVMRegressor", "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"),
        )
    ),
)
