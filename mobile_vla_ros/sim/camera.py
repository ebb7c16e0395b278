"""MuJoCo's software renderer, with one GL context for many scenes."""

import ctypes.util
import functools
import os
import weakref
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from mobile_vla_ros.errors import UserError

if TYPE_CHECKING:
    import mujoco

# OSMesa is the first choice: it needs no device. A window system's GL (GLFW, MuJoCo's own default)
# can only draw in the main thread.
GL_LIBRARIES = {'osmesa': 'OSMesa', 'egl': 'EGL'}
GL_REMEDY = 'sudo apt-get install libosmesa6 libegl1 libgl1-mesa-dri'
CAMERA = 'front'
FONT_SCALE = 50  # the smallest: no text is drawn, and the context takes 4 ms instead of 100


@functools.cache
def load_mujoco() -> ModuleType:
    """
    Import MuJoCo, which reads MUJOCO_GL then; choose it unless the user has.

    :raises UserError: when the renderer's library cannot be loaded.
    """
    if 'MUJOCO_GL' not in os.environ:
        os.environ['MUJOCO_GL'] = next(
            (backend for backend, name in GL_LIBRARIES.items() if ctypes.util.find_library(name)),
            'disable',
        )
    try:
        import mujoco
    except Exception as error:  # PyOpenGL fails in many ways without its library
        raise UserError(
            'MuJoCo cannot load its renderer',
            got=f'{type(error).__name__}: {error}',
            expected=f'the library of MUJOCO_GL={os.environ["MUJOCO_GL"]}',
            remedy=GL_REMEDY,
        ) from error
    return mujoco


class LoadedModel:
    """A model with all that drawing it needs; GL must be current."""

    def __init__(self, model: 'mujoco.MjModel') -> None:
        mujoco = load_mujoco()
        self.model = model
        self.context = mujoco.MjrContext(model, FONT_SCALE)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.context)
        self.scene = mujoco.MjvScene(model, maxgeom=200)
        self.option = mujoco.MjvOption()
        self.view = mujoco.MjvCamera()
        self.view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self.view.fixedcamid = model.camera(CAMERA).id


class Camera:
    """
    Renders the images of the base's camera. Use it in the thread that made it.

    A context lasts for many models: ``load`` takes about 4 ms where a new
    ``mujoco.Renderer`` takes about 130.

    :param width: pixels.
    :param height: pixels.
    :raises UserError: without GL.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        mujoco = load_mujoco()
        try:
            self._gl = mujoco.GLContext(width, height)
            self._gl.make_current()
        except Exception as error:  # each GL binding raises its own kind
            raise UserError(
                'the camera cannot render',
                got=f'{type(error).__name__}: {error}',
                expected=f'software GL (MUJOCO_GL={os.environ["MUJOCO_GL"]})',
                remedy=f'{GL_REMEDY}, or set MUJOCO_GL to osmesa or egl',
            ) from error
        self._loaded: list[LoadedModel] = []  # the present one, which the finalizer frees as well
        # OSMesa prints an exception if a context is alive when the interpreter ends.
        self._finalizer = weakref.finalize(self, _free, self._gl, self._loaded)

    def load(self, model: 'mujoco.MjModel') -> None:
        """Replace the model; its offscreen buffer must be at least this camera's size."""
        self._gl.make_current()
        while self._loaded:
            self._loaded.pop().context.free()
        self._loaded.append(LoadedModel(model))

    def image(self, data: 'mujoco.MjData') -> np.ndarray:
        """Return (height, width, 3) uint8, RGB, without sensor noise."""
        return self._draw(data)

    def geoms(self, data: 'mujoco.MjData') -> np.ndarray:
        """Return (height, width) int32: the geom at each pixel, -1 for the sky."""
        mujoco, (loaded,) = load_mujoco(), self._loaded
        scene = loaded.scene
        flags = scene.flags.copy()
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = True
        scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        try:
            pixels = self._draw(data).astype(np.int32)
        finally:
            scene.flags[:] = flags
        number = pixels[..., 0] + (pixels[..., 1] << 8) + (pixels[..., 2] << 16)
        table = np.full(scene.ngeom + 1, -1, dtype=np.int32)
        for geom in scene.geoms[: scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                table[geom.segid + 1] = geom.objid
        return table[number]

    def _draw(self, data: 'mujoco.MjData') -> np.ndarray:
        mujoco, (loaded,) = load_mujoco(), self._loaded
        self._gl.make_current()
        mujoco.mjv_updateScene(
            loaded.model,
            data,
            loaded.option,
            None,
            loaded.view,
            mujoco.mjtCatBit.mjCAT_ALL,
            loaded.scene,
        )
        rect = mujoco.MjrRect(0, 0, self.width, self.height)
        mujoco.mjr_render(rect, loaded.scene, loaded.context)
        pixels = np.empty((self.height, self.width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(pixels, None, rect, loaded.context)
        return pixels[::-1]  # GL counts rows from the bottom

    def close(self) -> None:
        """Release the context; safe to call twice."""
        self._finalizer()


def _free(gl, loaded: list[LoadedModel]) -> None:
    if loaded:
        gl.make_current()
        loaded.pop().context.free()
    gl.free()
