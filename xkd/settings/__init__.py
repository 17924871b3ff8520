"""The settings of params.yaml as typed, frozen models, one module per section.

Each key's meaning, unit, bounds and source in the paper stands here; defaults are the released setting.
`workflow/schemas/params.schema.json` is generated from these models. `xkd.params` reads the file. Values of settings
are part of a stage's inputs, so these definitions are no part of its code hash; what is computed from settings is in
`xkd.recipe`.
"""

from xkd.settings.base import MODALITY_NAMES as MODALITY_NAMES
from xkd.settings.base import Fraction as Fraction
from xkd.settings.base import Positive as Positive
from xkd.settings.base import Settings as Settings
from xkd.settings.data import Clips as Clips
from xkd.settings.data import Dataset as Dataset
from xkd.settings.data import Limits as Limits
from xkd.settings.data import LogMel as LogMel
from xkd.settings.data import ShardSettings as ShardSettings
from xkd.settings.evaluation import Attentive as Attentive
from xkd.settings.evaluation import Evaluate as Evaluate
from xkd.settings.evaluation import FewShot as FewShot
from xkd.settings.evaluation import Finetune as Finetune
from xkd.settings.evaluation import FrozenSettings as FrozenSettings
from xkd.settings.evaluation import Layer as Layer
from xkd.settings.evaluation import Linear as Linear
from xkd.settings.evaluation import Retrieval as Retrieval
from xkd.settings.evaluation import Svm as Svm
from xkd.settings.evaluation import Task as Task
from xkd.settings.model import Decoder as Decoder
from xkd.settings.model import Head as Head
from xkd.settings.model import Model as Model
from xkd.settings.objective import ObjectiveSettings as ObjectiveSettings
from xkd.settings.params import Ablation as Ablation
from xkd.settings.params import Base as Base
from xkd.settings.params import Params as Params
from xkd.settings.params import Report as Report
from xkd.settings.peers import Peers as Peers
from xkd.settings.peers import PeerSettings as PeerSettings
from xkd.settings.resources import Request as Request
from xkd.settings.resources import TrainingRequest as TrainingRequest
from xkd.settings.sweep import Point as Point
from xkd.settings.sweep import Sweep as Sweep
from xkd.settings.training import Execution as Execution
from xkd.settings.training import Training as Training
from xkd.settings.views import AudioView as AudioView
from xkd.settings.views import VideoView as VideoView
from xkd.settings.views import Views as Views
